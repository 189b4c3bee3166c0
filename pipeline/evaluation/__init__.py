"""What detectors can do, measured on labelled images."""
