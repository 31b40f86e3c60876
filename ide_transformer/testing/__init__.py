"""Conformance tests: what every part of a kind must do, one of your own included."""

from .families import check_family as check_family
from .models import check_model as check_model
from .tasks import check_task as check_task
