"""Schemes for fields that are made of whole blocks."""
