"""Tools for trained weights as a dynamical system: costs, layers, error budgets."""

from .public import *
