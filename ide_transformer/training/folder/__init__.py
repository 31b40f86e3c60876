"""The folder of a run: its files, its metrics, its checkpoints, and the models in it."""
