"""Tasks: data sets, tokenizers, batches and the loss."""

from .public import *
