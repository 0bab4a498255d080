"""What is shown: the store's results as MLflow runs, and reading them back."""
