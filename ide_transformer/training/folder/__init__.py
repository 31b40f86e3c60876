"""The folder of a run: its files, metrics, checkpoints and models."""
