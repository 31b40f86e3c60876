"""Adaptive steps, none across the boundary of an interval."""
