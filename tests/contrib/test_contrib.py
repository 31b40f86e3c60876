"""Each file of contrib is one that a user could have written."""

import ast
from pathlib import Path

import pytest

from ide_transformer import contrib


FOLDER = Path(contrib.__file__).parent
FILES = sorted(x for x in FOLDER.rglob("*.py") if x.name not in ("__init__.py", "public.py"))


def imported_by(path):
    """The modules of the package from which a file imports, with the names."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name}: a copy elsewhere cannot import {node.module}"
            if node.module.split(".")[0] == "ide_transformer":
                yield node.module, [alias.name for alias in node.names]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_public_names_alone_are_used(path):
    for module, names in imported_by(path):
        _, *inside = module.split(".")
        assert len(inside) <= 1 or inside[0] == "contrib", f"{path.name} reaches into {module}"
        assert not any(name.startswith("_") for name in names)
