"""Runge–Kutta methods that diffrax lacks."""
