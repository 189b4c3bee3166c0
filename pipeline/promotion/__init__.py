"""New versions of a category beside its champion: another threshold, the gate, and its evidence."""
