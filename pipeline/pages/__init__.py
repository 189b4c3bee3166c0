"""What all static pages share."""
