"""Gradient modes: the values kept on the way forward; the others are computed again."""
