"""Equal training here and in PyTorch."""
