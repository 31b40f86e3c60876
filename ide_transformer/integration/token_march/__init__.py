"""Marching the tokens of a text one after the other, with a cache."""
