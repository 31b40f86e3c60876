"""Operators, the terms of the right-hand side."""
