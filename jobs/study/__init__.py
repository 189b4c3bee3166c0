"""nightshift tune."""
