"""The champions that a night is scored with."""
