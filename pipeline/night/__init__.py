"""A night from its manifest to settled rows."""
