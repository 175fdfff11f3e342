"""Command lines that run the published methods and keep their results."""
