"""Checks of the properties that parts of a kind must have, your own included."""

from ..compare.convergence import MeasuredOrder as MeasuredOrder, measure_order as measure_order
from .equation import (
    check_constraint as check_constraint,
    check_control as check_control,
    check_operator as check_operator,
)
from .models import check_model as check_model
from .schemes import check_scheme as check_scheme
from .tasks import check_task as check_task
