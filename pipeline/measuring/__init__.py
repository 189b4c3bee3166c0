"""How good a detector is, on labelled images."""
