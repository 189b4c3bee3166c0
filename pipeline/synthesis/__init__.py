"""Banks of synthetic images that deviate from a category's good ones."""
