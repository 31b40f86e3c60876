"""Configurations: their sections, their files, and the one reader."""
