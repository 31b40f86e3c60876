"""The equal training and generation here and in PyTorch."""
