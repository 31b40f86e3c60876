"""Equal training in this package and in PyTorch."""
