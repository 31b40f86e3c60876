"""Constraint sets of the state, and the maps of checkpoints."""
