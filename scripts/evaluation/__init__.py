"""The studies of evaluate.py and their figures."""
