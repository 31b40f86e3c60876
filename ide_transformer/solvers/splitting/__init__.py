"""Operator splitting: one operator after the other, or all in parallel."""
