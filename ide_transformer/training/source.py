"""The code that makes a run."""

import functools as ft
import hashlib
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import jax

from .config import Config


def source(config: Config | None = None) -> str:
    """The version of the package and a checksum of its files, `0.1.0 (1a2b3c4d5e6f)`, and that
    of each module of your own whose classes the configuration names."""
    values = [] if config is None else jax.tree.leaves(config.model_dump(mode="json"))
    named = {x.partition(":")[0] for x in values if isinstance(x, str) and ":" in x}
    files = {name: getattr(sys.modules.get(name), "__file__", None) for name in sorted(named)}
    own = [f"{name} ({checksum_of([Path(file)])})" for name, file in files.items() if file]
    return ", ".join((_package(), *own))


@ft.cache
def _package() -> str:
    files = sorted(Path(__file__).parents[1].rglob("*.py"))
    return f"{version('ide_transformer')} ({checksum_of(files)})"


def checksum_of(files: Sequence[Path]) -> str:
    """A short checksum of some files."""
    sums = (hashlib.sha256(file.read_bytes()).hexdigest() for file in files)
    return hashlib.sha256("".join(sums).encode()).hexdigest()[:12]
