"""nightshift onboard."""
