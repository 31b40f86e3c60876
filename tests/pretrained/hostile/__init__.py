"""Files that attack their reader."""

from . import folders as folders, packed as packed, parts as parts
from .registry import ATTACKS as ATTACKS
