"""nightshift doctor."""
