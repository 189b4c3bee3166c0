"""``nightshift inspect``: what a person should know of images before training on them."""
