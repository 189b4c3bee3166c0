"""Data sets: which images a category has, and what is known of them."""
