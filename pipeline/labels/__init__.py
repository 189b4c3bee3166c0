"""What people said of images: one table per category, and manifests from and for elsewhere."""
