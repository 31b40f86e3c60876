"""A short run."""

from tests.compare.conftest import tiny_run as tiny_run
