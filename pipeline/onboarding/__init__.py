"""One category, from its images to a package that can be registered."""
