"""The morning page of a night."""
