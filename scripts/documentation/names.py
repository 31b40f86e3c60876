"""The public names on the pages of the API: each has its place, with what it is in a sentence,
where the site has its whole documentation."""

import importlib
import inspect
import re
from collections import Counter
from pathlib import Path

from ide_transformer import InputError


# The modules whose names users may import. What a folder has for the others only is not in
# its `public.py`.
FACES = (
    "ide_transformer",
    "ide_transformer.dynamics",
    "ide_transformer.equation",
    "ide_transformer.integration",
    "ide_transformer.models",
    "ide_transformer.pretrained",
    "ide_transformer.solvers",
    "ide_transformer.tasks",
    "ide_transformer.testing",
    "ide_transformer.training",
)


_PLACE = re.compile(r"^- `(ide_transformer\.[\w.]+)`.*$", flags=re.M)
_HIDING = re.compile(r"(\.\w+)\1$")
# What ends a clause; code and what stands in brackets are passed over.
_END = re.compile(r"`[^`]*`|[\[(][^\[\]()]*[\])]|\{[^}]*\}|([,;:]) ")


def public_names() -> dict[int, list[str]]:
    """Every name that a face exports, as `module.name`; those of one object together, the
    shortest first."""
    names: dict[int, list[str]] = {}
    for face in FACES:
        module = importlib.import_module(face)
        if face != "ide_transformer":
            module = getattr(module, "public", module)
        for name in dir(module):
            found = getattr(module, name)
            if not name.startswith("_") and not inspect.ismodule(found):
                names.setdefault(id(found), []).append(f"{face}.{name}")
    return {key: sorted(found, key=len) for key, found in names.items()}


def with_summaries(page: str) -> str:
    """A page with the first clause of the documentation of each name on it."""

    def place(match: re.Match[str]) -> str:
        module, _, name = _HIDING.sub(r"\1", match[1]).rpartition(".")
        found = getattr(importlib.import_module(module), name, None)
        documented = inspect.isclass(found) or inspect.isroutine(found)
        said = (inspect.getdoc(found) or "").partition("\n\n")[0] if documented else ""
        sentence = re.split(r"(?<=[.])\s", " ".join(said.split()))[0].rstrip(".,:")
        noun = re.sub(r"^(?:A|An|The) (.)", lambda x: x[1].upper(), sentence)
        return f"- `{match[1]}`" + f": {_first_clause(noun)}" * bool(noun)

    return _PLACE.sub(place, page)


def _first_clause(sentence: str) -> str:
    """A sentence up to the first comma, semicolon or colon after two words."""
    for end in _END.finditer(sentence):
        clause = sentence[: end.start()]
        if end[1] and len(clause.split()) > 1:
            return clause
    return sentence


def with_directives(page: str) -> str:
    """A page with the directive that the site replaces in the place of each name."""
    return _PLACE.sub(r"\n::: \1\n", page)


def check_names(folder: Path) -> None:
    """Refuses public names without one place, "- `name`", on the pages of a folder."""
    text = "\n".join(page.read_text(encoding="utf-8") for page in folder.glob("*.md"))
    # A function that hides the file in which it stands is placed as `file.function`.
    placed = Counter(_HIDING.sub(r"\1", name) for name in _PLACE.findall(text))
    # Where a name stands in a folder and at the top, its place is at the top.
    public = {names[0] for names in public_names().values()}
    problems = [
        f"{name}: {placed[name]} places on the pages of {folder}"
        for name in sorted(public)
        if placed[name] != 1
    ]
    problems += [f"{name}: on a page, and not public" for name in placed if name not in public]
    if problems:
        raise InputError("\n".join(problems))


def check_built(folder: Path) -> None:
    """Refuses public names that are not on the built pages in a folder."""
    text = "\n".join(page.read_text(encoding="utf-8") for page in folder.rglob("*.html"))
    anchors = {_HIDING.sub(r"\1", anchor) for anchor in re.findall(r'id="([\w.]+)"', text)}
    missing = [names[0] for names in public_names().values() if not anchors & set(names)]
    # griffe reads sources only, and took a file for the function that hides it.
    files = re.findall(r'doc-object doc-module">\s*<h\d id="([\w.]+)"', text)
    if missing or files:
        raise InputError(f"not on the pages: {', '.join(missing + files)}")
