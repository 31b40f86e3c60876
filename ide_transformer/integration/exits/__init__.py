"""Exits: when a token stops before the end of a solve."""
