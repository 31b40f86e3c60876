"""Schemes whose steps can be undone."""
