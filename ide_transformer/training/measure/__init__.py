"""What is measured of trained models, and before a training."""
