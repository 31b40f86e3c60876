"""A solve at other resolutions of tokens, features and depth, and the error of each."""

from .budget import (
    ErrorBudget as ErrorBudget,
    ErrorPart as ErrorPart,
    error_budget as error_budget,
    gain as gain,
    refinements as refinements,
)
from .function_solve import FunctionSolve as FunctionSolve
