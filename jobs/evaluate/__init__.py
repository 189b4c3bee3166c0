"""nightshift evaluate."""
