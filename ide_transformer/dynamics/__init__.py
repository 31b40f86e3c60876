"""Given weights seen as a dynamical system: defects, coarser and finer meshes, errors."""

from .public import *
