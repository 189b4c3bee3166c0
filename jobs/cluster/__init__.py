"""Ray: a cluster to work on, and its answers as they come."""
