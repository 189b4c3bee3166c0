"""nightshift score."""
