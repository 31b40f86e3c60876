"""Evaluations, predictions and roll-outs of trained models."""
