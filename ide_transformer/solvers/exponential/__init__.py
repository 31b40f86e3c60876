"""Schemes that treat a linear operator exactly."""
