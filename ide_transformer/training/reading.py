"""Configurations from YAML files, read strictly, and overrides `a.b=value`.

Numbers and words are those of YAML 1.2: `yes`, `010`, `1:30` and dates are texts, and `1e-3` is
a number. A key is a text, also a whole number. Tags, anchors and aliases are refused, and `<<`
is a key like others."""

import inspect
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, TypeAlias, TypeVar, cast, get_args

import yaml
from pydantic import BaseModel, ValidationError

from ..errors import InputError
from ..pretrained.checkpoint import PACKAGES
from .choice import Section
from .config import NATIVE, Config
from .names import did_you_mean, names_of_code, short, shown


# Characters of a text, and levels of sections in it.
LONGEST, DEEPEST = 2**18, 50
# What is wrong in a text is said so many times.
_MOST_SAID = 20

S = TypeVar("S", bound=Section)

# Whether code that a file names may be imported, or a configuration whose names may.
Trust: TypeAlias = bool | Config

# What to write instead, by the kind of the error.
_WRITE = {
    "bool_type": "; write true or false",
    "string_type": "; write a text in quotes",
    "int_type": "; write for example 8",
    "float_type": "; write for example 0.5 or 1.0e-3",
    "model_type": "; write its keys below it",
    "dict_type": "; write its keys below it",
}


def load_config(
    path: str | Path, overrides: Sequence[str] = (), *, trust: Trust | None = None
) -> Config:
    """The configuration in a YAML file, with overrides `section.key=value` applied.

    **Arguments:**

    - `trust`: see `read_tree`.

    **Raises:** `InputError` that names every key in error and where it was written, all names
    that are not trusted, and a run of another version.
    """
    tree = read_tree(path := Path(path), trust=trust)
    if of_run(path.parent) and "version" not in tree:
        raise InputError(
            f"{path} has no version, which is from before the first release. Train it again."
        )
    tree.setdefault("name", path.stem)
    origin = apply_overrides(tree, overrides)
    return validated(Config, tree, str(path), origin, trust=trust)


def as_config(config: Config | str | Path) -> Config:
    """A configuration, or that in the YAML file of this path."""
    return config if isinstance(config, Config) else load_config(config)


def of_run(folder: Path) -> bool:
    """Whether this is the folder of a run."""
    return (folder / "checkpoints").is_dir()


def read_tree(path: str | Path, *, trust: Trust | None = None) -> dict[str, Any]:
    """The sections of a YAML file, of which nothing is checked but the code that they name.

    **Arguments:**

    - `trust`: whether that code, `package.module:Class`, may be imported, or a configuration
      whose names may; by default it may unless the file lies in the folder of a run, which
      somebody else may have made.

    **Raises:** `InputError` for code that is not trusted.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: there is no such configuration file.")
    with path.open("rb") as file:
        tree = read_yaml(file.read(LONGEST + 1), str(path))
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise InputError(f"{path}: expected sections such as `model:`, found {shown(tree)}.")
    check_code(tree, path, not of_run(path.parent) if trust is None else trust)
    return tree


def check_code(tree: Any, path: Path, trust: Trust) -> None:
    """**Raises:** `InputError` for code that a tree from this file names and that is not
    trusted."""
    if trust is True:
        return
    known = names_of_code(trust.model_dump(mode="json")) if trust else {}
    own = {name for names in known.values() for name in names}
    foreign = [
        f"{short(key)} names {short(name)}"
        for key, names in names_of_code(tree).items()
        for name in names
        if name not in own
    ]
    if foreign:
        raise InputError(
            f"{path} names code of its own, which would be run: "
            f"{_some(foreign[:_MOST_SAID], len(foreign), '; ')}. If you trust it, give --trust "
            "(in Python trust=True, in a comparison trust: true)."
        )


def _some(texts: Sequence[str], number: int, between: str) -> str:
    """The first texts of so many, and how many more there are."""
    left = number - len(texts)
    return between.join([*texts, *[f"and {left:,} more"] * (left > 0)])


def filled(tree: dict[str, Any], trust: Trust) -> dict[str, Any]:
    """The sections of a configuration, filled from the run that `model.pretrained` names, if it
    does, and so are their `options`: a section that chooses a class, by `kind` or `name`, is
    taken as it is."""
    model = tree.get("model")
    given = dict(model) if isinstance(model, dict) else {}
    pretrained = given.pop("pretrained", None)
    folder = run_named(pretrained if isinstance(pretrained, str) else "")
    if given.get("run") or not pretrained or not (folder / "config.yaml").is_file():
        return tree
    there = load_config(folder / "config.yaml", trust=trust).model_dump(mode="json")
    if there["data"]["tokenizer"] is not None:
        # It is that of the run, and is not learned again.
        there["data"] |= {"tokenizer": None, "vocabulary": None}
    own = {"run": str(folder.resolve()), "checkpoint": "newest"}
    sections = {"model": {**there["model"], **own, **given}}
    for name, choice in (("data", "name"), ("control", "kind"), ("solver", "kind")):
        section = tree.get(name, {})
        options = section.get("options", {}) if isinstance(section, dict) else None
        sections[name] = section
        if isinstance(options, dict) and choice not in section:
            options = {**there[name]["options"], **options}
            sections[name] = {**there[name], **section, "options": options}
    if sections["solver"] in (NATIVE, {"kind": NATIVE}):
        sections["solver"] = there["solver"]
    return {**tree, **sections}


def run_named(path: str | Path) -> Path:
    """The folder of the run of that name in `runs`, where nothing else is called so; else the
    path itself."""
    inside = Path("runs", path)
    other = Path(path).exists() or str(path) in PACKAGES
    return inside if not other and (inside / "config.yaml").is_file() else Path(path)


def apply_overrides(tree: dict[str, Any], overrides: Sequence[str]) -> dict[str, str]:
    """Changes a tree of sections by overrides; the override that gave each key."""
    origin: dict[str, str] = {}
    for override in overrides:
        where = f"override {shown(override)}"
        key, separator, text = override.partition("=")
        *parents, last = path = key.split(".")
        if not separator or not all(path):
            raise InputError(
                f"{shown(override)} is not an override; write section.key=value, for example "
                "model.depth=8."
            )
        branch = tree
        for depth, part in enumerate(parents, 1):
            branch = branch.setdefault(part, {})
            if not isinstance(branch, dict):
                section = ".".join(parents[:depth])
                raise InputError(f"{where}: {section} is a value, not a section.")
        branch[last] = read_yaml(text, where, tuple(path))
        for other, earlier in origin.items():
            if f"{other}.".startswith(f"{key}."):
                raise InputError(f"{where}: {key} would replace {earlier}; drop one of them.")
        origin[key] = where
    return origin


def validated(
    kind: type[S],
    tree: Any,
    where: str,
    origin: dict[str, str] | None = None,
    *,
    trust: Trust | None = None,
) -> S:
    """A tree as a section of that kind; `trust` is that in a run that `model.pretrained` names.

    **Raises:** `InputError` that names every key in error and the place `where` the tree was
    written, or the one that `origin` gives for the key.
    """
    try:
        return kind.model_validate(tree, context={"trust": trust})
    except ValidationError as error:
        errors = error.errors()
        problems = [_problem(kind, x, origin or {}, where) for x in errors[:_MOST_SAID]]
        raise InputError(_some(problems, len(errors), "\n")) from None


def dump_config(config: Config) -> str:
    """The configuration as YAML, every key written out."""
    return write_yaml(config.model_dump(mode="json"))


def _problem(kind: type[Section], error: Any, origin: dict[str, str], where: str) -> str:
    """One line for one error of pydantic: what, where, why, and what to write instead."""
    location, value = [str(part) for part in error["loc"]], error["input"]
    key, name = ".".join(location), ".".join(map(short, location))
    message = error["msg"].removeprefix("Value error, ").rstrip(".")
    # The override of the key or of a section above it; else those of keys that the message
    # names, or of keys below it.
    above = [".".join(location[:n]) for n in range(len(location), 0, -1)]
    given = [origin[x] for x in above if x in origin][:1]
    given = given or [text for x, text in origin.items() if x in message]
    given = given or [text for x, text in origin.items() if key and x.startswith(f"{key}.")]
    where = ", ".join(given) or where
    if error["type"] == "extra_forbidden":
        known = list(_section(kind, location[:-1]).model_fields)
        hint = did_you_mean(location[-1], known)
        return f"{where}: unknown key {name}.{hint} Known here: {', '.join(known)}."
    if error["type"] == "missing":
        return f"{where}: {name} is missing."
    if not key or (error["type"] == "value_error" and isinstance(value, dict | BaseModel)):
        return f"{where}: {message}."
    write = _WRITE.get(error["type"], "")
    if write and isinstance(value, float) and value.is_integer():
        write = f"; write {value:.0f}"
    known = re.findall(r"'([^']*)'", message) if error["type"] == "literal_error" else []
    # An override of this key alone would say it a second time.
    where = "" if where.startswith(f"override '{key}=") else f"{where}: "
    what = f"{where}{name}={shown(value)}: {message}{write}."
    return f"{what}{did_you_mean(str(value), known)}"


def _section(kind: type[Section], location: list[str]) -> type[Section]:
    """The class of the section at that place of the tree."""
    section: Any = kind
    for part in location:
        if part in section.model_fields:  # and not the key of a mapping
            types = _types(section.model_fields[part].annotation)
            section = next(x for x in types if inspect.isclass(x) and issubclass(x, Section))
    return section


def _types(annotation: Any) -> list[Any]:
    """All types inside an annotation."""
    return [annotation, *(y for x in get_args(annotation) for y in _types(x))]


def read_yaml(text: str | bytes, where: str, path: tuple[str, ...] = ()) -> Any:
    """The value that a text holds, which is for the key at `path`; `None` for none. An
    `InputError` names the place `where` the text is from, its line, and the key in error."""
    if len(text) > LONGEST:
        raise InputError(f"{where}: a configuration has at most {LONGEST:,} characters.")
    try:
        reader = _Reader(text if isinstance(text, str) else text.decode("utf-8-sig"), path)
        node = reader.get_node() if reader.check_node() else None
        if reader.check_node():
            raise InputError("it holds more than one document (---); write one.")
        return None if node is None else reader.construct_document(node)
    except UnicodeDecodeError as error:
        raise InputError(
            f"{where}: {error.reason} at byte {error.start}; the file must be UTF-8."
        ) from None
    except yaml.MarkedYAMLError as error:
        mark, problem = error.problem_mark or error.context_mark, error.problem or error.context
        raise InputError(f"{where}: not valid YAML: {_place(mark)}: {problem}.") from None
    except (yaml.YAMLError, InputError) as error:
        raise InputError(f"{where}: {' '.join(str(error).split())}") from None


def write_yaml(tree: Any) -> str:
    """A tree of plain values as YAML that `read_yaml` gives back."""
    return yaml.dump(tree, Dumper=_Dumper, sort_keys=False)


class _Reader(yaml.SafeLoader):
    """Reads YAML 1.2 for the key `path`, and refuses what no configuration holds."""

    yaml_implicit_resolvers: ClassVar[dict[Any, Any]] = {}

    def __init__(self, text: str, path: tuple[str, ...]) -> None:
        super().__init__(text)
        self.path, self.keys = [*path], {}

    def compose_node(self, parent: Any, index: Any) -> Any:
        """The value of the key `index`, or the item of that number; without either a key."""
        if isinstance(index, yaml.Node):
            self._check_key(parent, index)
        if parent is not None:
            self.path.append(str(getattr(index, "value", index)))
        event: Any = self.peek_event()
        path = ".".join(map(short, self.path[:8]))
        here = f"{_place(event.start_mark)}: {path or 'the file'}"
        if len(self.path) > DEEPEST:
            raise InputError(f"{here}…: more than {DEEPEST} sections inside each other.")
        if event.anchor is not None:
            raise InputError(
                f"{here}: anchors (&) and aliases (*) are not read; write the value out, or "
                "quote a text that begins so."
            )
        if event.tag is not None:
            raise InputError(f"{here}: tags are not read; drop {short(event.tag)}.")
        node: Any = super().compose_node(parent, cast(int, index))
        if parent is not None:
            self.path.pop()
        return node

    def _check_key(self, section: Any, key: Any) -> None:
        for kind in ("int", "float"):
            if key.tag == f"{_TAG}{kind}":
                number = getattr(self, f"construct_yaml_{kind}")(key)
                key.tag, key.value = f"{_TAG}str", str(number)
        name = key.value if isinstance(key, yaml.ScalarNode) else "?"
        here = f"{_place(key.start_mark)}: {'.'.join(map(short, [*self.path, name]))}"
        if key.tag != f"{_TAG}str":
            raise InputError(f"{here}: a key is a name; write it in quotes if it is one.")
        first = self.keys.setdefault((section, key.value), key)
        if first is not key:
            line = first.start_mark.line + 1
            raise InputError(f"{here} is given twice, first in line {line}; drop one of them.")


class _Dumper(yaml.SafeDumper):
    """Quotes what a reader of YAML 1.1 or of 1.2 would not take for a text."""


_TAG = "tag:yaml.org,2002:"
_FLOAT = (
    r"[-+]?(?:(?:[0-9]+\.[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?|[0-9]+[eE][-+]?[0-9]+"
    r"|\.(?:inf|Inf|INF))|\.(?:nan|NaN|NAN)"
)
for _name, _pattern in {
    "null": "~|null|Null|NULL|",
    "bool": "true|True|TRUE|false|False|FALSE",
    # An integer of more digits is no number of a configuration.
    "int": "[-+]?(?:0|[1-9][0-9_]{0,99})",
    "float": _FLOAT,
}.items():
    _Reader.add_implicit_resolver(_TAG + _name, re.compile(rf"(?:{_pattern})\Z"), None)
_Dumper.add_implicit_resolver(f"{_TAG}float", re.compile(rf"(?:{_FLOAT})\Z"), None)


def _place(mark: Any) -> str:
    return f"line {mark.line + 1}, column {mark.column + 1}"
