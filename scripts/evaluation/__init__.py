"""What evaluate.py measures, and the figure of it."""
