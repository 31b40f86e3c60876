"""For each public class and function: arguments that are right, and a use of the result."""

from .ends import ENDS
from .models import FILES, MODELS
from .parts import CONSTRAINTS, CONTROLS, OPERATORS
from .solving import EQUATIONS, EXITS, SCHEMES
from .texts import TEXTS


RECIPES = {
    **OPERATORS,
    **CONSTRAINTS,
    **CONTROLS,
    **EQUATIONS,
    **EXITS,
    **SCHEMES,
    **MODELS,
    **FILES,
    **TEXTS,
    **ENDS,
}
