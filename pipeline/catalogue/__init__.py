"""The catalogue: which categories there are, with which settings."""
