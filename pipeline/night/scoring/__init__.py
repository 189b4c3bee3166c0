"""From the night's plan to stored rows."""
