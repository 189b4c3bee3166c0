"""nightshift demo."""
