"""What can be said of a night once all its rows are there."""
