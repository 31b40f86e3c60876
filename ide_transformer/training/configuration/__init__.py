"""Configurations: their sections, their files, and the reader of both."""
