"""Past nights scored once more with other detectors, and what that would have changed."""
