"""The public names; their constructors check their arguments."""

from .arguments import check_constructors as _check_constructors
from .dynamics import error_budget as error_budget
from .equation.public import *
from .errors import InputError as InputError
from .integration.public import *
from .models.public import *
from .pretrained import load_pretrained as load_pretrained, save_pretrained as save_pretrained
from .solvers.public import *
from .tasks import AbstractTask as AbstractTask, Batch as Batch


_check_constructors(vars())
