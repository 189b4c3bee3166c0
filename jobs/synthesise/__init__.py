"""nightshift synthesise."""
