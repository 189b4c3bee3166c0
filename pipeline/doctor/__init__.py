"""Checks of what Nightshift needs."""
