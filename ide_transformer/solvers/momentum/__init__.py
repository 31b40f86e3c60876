"""Schemes that give the state a velocity."""
