"""Schemes that use the steps before."""

from .adams_bashforth import AdamsBashforth as AdamsBashforth
from .leapfrog import Leapfrog as Leapfrog
