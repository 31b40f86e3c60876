"""Tools for trained weights as a dynamical system: costs, costates, layers, error budgets."""

from .public import *
