"""Errors and losses against the resolutions of tokens, features and depth."""
