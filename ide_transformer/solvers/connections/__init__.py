"""Schemes with learned weights between their steps, or between several states."""
