"""Checks of a category's images before anything is trained on them."""
