"""The table of the families of checkpoints, read from their files and small examples."""

import inspect
import re
import sys
from pathlib import Path

from ide_transformer import AbstractConstraint, load_pretrained
from ide_transformer.equation import parts
from ide_transformer.models import Model
from ide_transformer.pretrained import families
from ide_transformer.pretrained.family import Family
from ide_transformer.reporting import markdown_table as table

from .configuration import code


# A family without an example of its own, and the one of which it is a case.
_EXAMPLE_OF = {"glassllm": "llama"}


def families_table(root: Path) -> str:
    """`model_type`, the constraint, the native scheme, and the architecture."""
    rows: dict[tuple[str, ...], list[str]] = {}
    for kind, family in families().items():
        model = load_pretrained(root / "tests" / "golden" / _EXAMPLE_OF.get(kind, kind))
        sets = parts(model.constraint(0.0), AbstractConstraint)
        constraint = code(type(next(iter(sets))).__name__)
        rows.setdefault((constraint, _scheme(model), _about(family)), []).append(code(kind))
    headings = ("`model_type`", "constraint", "native scheme", "checkpoints")
    return table(headings, [(", ".join(kinds), *row) for row, kinds in rows.items()])


def _about(family: Family) -> str:
    """The first sentence of the file of a family."""
    build = getattr(family.build, "func", family.build)
    text = inspect.getdoc(sys.modules[build.__module__]) or ""
    return re.split(r";|\.(?=\s)", text)[0].rstrip(".")


def _scheme(model: Model) -> str:
    return code(str(model.solver).replace("sub_solver=", "").replace("solver=", ""))
