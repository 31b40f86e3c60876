"""The public names."""

from .dynamics import error_budget as error_budget
from .equation.public import *
from .errors import InputError as InputError
from .integration.public import *
from .models.public import *
from .pretrained import load_pretrained as load_pretrained, save_pretrained as save_pretrained
from .solvers.public import *
from .tasks import AbstractTask as AbstractTask, Batch as Batch
