"""Images: from bytes to the pixels that a network sees, and to pictures that people see."""
