"""MLflow: runs, registered models and what can be done with one of them."""
