"""Pooled features of images, kept from command to command: named by content, bounded, evictable."""
