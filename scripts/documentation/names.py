"""Whether every public name has its place on a page of the API."""

import importlib
import re
from collections import Counter
from pathlib import Path

from ide_transformer import InputError


# The modules whose names users may import.
FACES = (
    "ide_transformer",
    "ide_transformer.pretrained",
    "ide_transformer.dynamics",
    "ide_transformer.training",
    "ide_transformer.tasks",
    "ide_transformer.testing",
)


_PLACE = re.compile(r"^::: (\S+)", flags=re.M)
_HIDING = re.compile(r"(\.\w+)\1$")


def public_names() -> dict[int, list[str]]:
    """Every name that a face exports, as `module.name`; those of one object together, the
    shortest first."""
    names: dict[int, list[str]] = {}
    for face in FACES:
        module = importlib.import_module(face)
        own = Path(str(module.__file__))
        # Those of the package are listed in files of their own, also in its rooms.
        files = own, *own.parent.glob("public.py"), *own.parent.glob("*/public.py")
        source = "\n".join(file.read_text(encoding="utf-8") for file in files)
        for name in re.findall(r"\b(\w+) as \1\b", source):
            names.setdefault(id(getattr(module, name)), []).append(f"{face}.{name}")
    return {key: sorted(found, key=len) for key, found in names.items()}


def check_names(folder: Path) -> None:
    """Compares the public names with the directives `::: name` on the pages of a folder.

    **Raises:** `InputError` that lists names without a place, with two, or unknown.
    """
    text = "\n".join(page.read_text(encoding="utf-8") for page in folder.glob("*.md"))
    # A function that hides the file in which it stands is placed as `file.function`.
    placed = Counter(_HIDING.sub(r"\1", name) for name in _PLACE.findall(text))
    public = public_names().values()
    known = {name for names in public for name in names}
    problems = [
        f"{' = '.join(names)}: {count} places on the pages of {folder}"
        for names in public
        if (count := sum(placed[name] for name in names)) != 1
    ]
    problems += [f"{name}: on a page, and not public" for name in placed if name not in known]
    if problems:
        raise InputError("\n".join(problems))


def check_built(folder: Path) -> None:
    """Looks for the public names on the built pages in a folder.

    **Raises:** `InputError` that lists those that are not there, or where a file stands in the
    place of a function.
    """
    text = "\n".join(page.read_text(encoding="utf-8") for page in folder.rglob("*.html"))
    anchors = {_HIDING.sub(r"\1", anchor) for anchor in re.findall(r'id="([\w.]+)"', text)}
    missing = [names[0] for names in public_names().values() if not anchors & set(names)]
    # griffe reads sources only, and took a file for the function that hides it.
    files = re.findall(r'doc-object doc-module">\s*<h\d id="([\w.]+)"', text)
    if missing or files:
        raise InputError(f"not on the pages: {', '.join(missing + files)}")
