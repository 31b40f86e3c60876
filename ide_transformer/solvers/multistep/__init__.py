"""Schemes that use the steps before."""
