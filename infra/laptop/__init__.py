"""The topology of a cluster on one machine, without containers."""
