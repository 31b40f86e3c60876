"""Configuration files, overrides `a.b=value`, and settings that a run inherits from another.

Numbers and words are read by YAML 1.2: `yes`, `010`, `1:30` and dates are texts, `1e-3` is a
number. Keys are texts, also whole numbers and `<<`. Tags, anchors and aliases are rejected."""

import inspect
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar, TypeAlias, TypeVar, get_args

import yaml
from pydantic import BaseModel, ValidationError

from ...errors import InputError, did_you_mean, short, shown
from ...pretrained.checkpoint import PACKAGES
from .config import NATIVE, Config, Section


# Whether code that a file names may be imported; a configuration allows the code it names.
Trust: TypeAlias = bool | Config
# Keys of files and folders, whose names may hold a colon.
_PATHS = ("data", "path"), ("model", "pretrained"), ("model", "run")
# The most characters of a text, and the most sections inside each other.
_LONGEST = 2**18
_DEEPEST = 50
# It must not begin inside a name, or a long text would take quadratic time.
NAME_OF_CODE = re.compile(r"(?<![\w.])[^\W\d]\w*(?:\.[^\W\d]\w*)*:[^\W\d]\w*")
# An error lists at most this many problems of a file.
_MOST_SAID = 20

S = TypeVar("S", bound=Section)


def load_config(
    path: str | Path, overrides: Sequence[str] = (), *, trust: Trust | None = None
) -> Config:
    """The configuration in a YAML file, with overrides `section.key=value` applied. An empty
    value, `section.key=`, drops the key from the file.

    **Arguments:**

    - `trust`: see `read_tree`.

    **Raises:** `InputError` that names every wrong key and its place; for code not trusted.
    """
    tree = read_tree(path := Path(path), trust=trust)
    tree.setdefault("name", path.stem)
    origin = apply_overrides(tree, overrides)
    return config_of(tree, str(path), origin, trust=trust)


def config_of(
    tree: dict[str, Any],
    where: str,
    origin: dict[str, str] | None = None,
    *,
    trust: Trust | None = None,
) -> Config:
    """The configuration in a tree that was written at the place `where`, with the settings that
    it inherits. `origin` has the override that gave a key."""
    return validated(Config, inherit(tree, trust or False), where, origin)


def as_config(config: Config | str | Path) -> Config:
    """A configuration, or the one in this YAML file, with the settings that it inherits."""
    if not isinstance(config, Config):
        return load_config(config)
    tree = config.model_dump(mode="json", exclude_unset=True)
    inherited = inherit(tree, False)
    return config if inherited is tree else validated(Config, inherited, "config")


def read_tree(path: str | Path, *, trust: Trust | None = None) -> dict[str, Any]:
    """The sections of a YAML file. Only the code that they name is checked.

    **Arguments:**

    - `trust`: whether code that the file names, `package.module:Class`, may be imported; a
      configuration allows the code that it names. Default: yes, but not in the folder of a run.

    **Raises:** `InputError` for code that is not trusted.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: there is no such file.")
    with path.open("rb") as file:
        tree = read_yaml(file.read(_LONGEST + 1), str(path))
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise InputError(f"{path}: expected sections such as `model:`, found {shown(tree)}.")
    of_run = (path.parent / "checkpoints").is_dir()
    check_code(tree, path, not of_run if trust is None else trust)
    return tree


def check_code(tree: Any, path: Path, trust: Trust) -> None:
    """**Raises:** `InputError` if the tree from this file names code that is not trusted."""
    if trust is True:
        return
    known = names_of_code(trust.model_dump(mode="json")) if trust else {}
    own = {name for names in known.values() for name in names}
    named = [(short(key), name) for key, names in names_of_code(tree).items() for name in names]
    foreign = [f"{key} names {short(name)}" for key, name in named if name not in own]
    if foreign:
        what = f"{path} names code of its own: {some_of(foreign, '; ')}"
        raise InputError(f"{what}. If you trust it, give --trust (Python: trust=True).")


def inherit(tree: dict[str, Any], trust: Trust) -> dict[str, Any]:
    """The tree, completed from the run that `model.pretrained` names: the model, and what the
    sections `data`, `control` and `solver` do not give, unless they choose another class."""
    model = tree.get("model")
    given = dict(model) if isinstance(model, dict) else {}
    pretrained = given.pop("pretrained", None)
    folder = run_named(pretrained if isinstance(pretrained, str) else "")
    if given.get("run") or not pretrained or not (folder / "config.yaml").is_file():
        return tree
    there = load_config(folder / "config.yaml", trust=trust).model_dump(mode="json")
    if there["data"]["tokenizer"] is not None:
        # The tokenizer of the run is used, so none is learned.
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
    """The run of this name in `runs`, unless the path exists or a package has the name."""
    inside = Path("runs", path)
    other = Path(path).exists() or str(path) in PACKAGES
    return inside if not other and (inside / "config.yaml").is_file() else Path(path)


def apply_overrides(tree: dict[str, Any], overrides: Sequence[str]) -> dict[str, str]:
    """Changes a tree by overrides; returns which gave each key. Without a value it drops it."""
    origin: dict[str, str] = {}
    for override in overrides:
        where = f"override {shown(override)}"
        key, separator, text = override.partition("=")
        *parents, last = key.split(".")
        if not separator or not all((*parents, last)):
            raise InputError(f"{shown(override)}: write section.key=value, as model.layers=8.")
        branch = tree
        for depth, part in enumerate(parents, 1):
            branch = branch.setdefault(part, {})
            if not isinstance(branch, dict):
                section = ".".join(parents[:depth])
                raise InputError(f"{where}: {section} is a value, not a section.")
        value = read_yaml(text, where)
        if value is None:
            branch.pop(last, None)
        else:
            branch[last] = value
        for other, earlier in origin.items():
            if f"{other}.".startswith(f"{key}."):
                raise InputError(f"{where}: {key} would replace {earlier}; drop one of them.")
        origin[key] = where
    return origin


def validated(kind: type[S], tree: Any, where: str, origin: dict[str, str] | None = None) -> S:
    """Makes a section from a tree of plain values.

    **Raises:** `InputError` that names wrong keys, and their overrides in `origin` or `where`.
    """
    try:
        return kind.model_validate(tree)
    except ValidationError as error:
        problems = [_problem(kind, x, origin or {}, where) for x in error.errors()]
        raise InputError(some_of(problems, "\n")) from None


def some_of(texts: Sequence[str], between: str) -> str:
    """The first texts, and how many more there are."""
    left = len(texts) - _MOST_SAID
    return between.join([*texts[:_MOST_SAID], *[f"and {left:,} more"] * (left > 0)])


def _problem(kind: type[Section], error: Any, origin: dict[str, str], where: str) -> str:
    """One line for an error of pydantic."""
    location = [str(part) for part in error["loc"]]
    value = error["input"]
    key = ".".join(location)
    name = ".".join(map(short, location))
    message = error["msg"].removeprefix("Value error, ").rstrip(".")
    # The override of the key or of a section above it; else the overrides of keys that the
    # message names, or of keys below it.
    above = [".".join(location[:n]) for n in range(len(location), 0, -1)]
    given = [origin[x] for x in above if x in origin][:1]
    given = given or [text for x, text in origin.items() if x in message]
    given = given or [text for x, text in origin.items() if key and x.startswith(f"{key}.")]
    where = ", ".join(given) or where
    if error["type"] == "extra_forbidden":
        section = kind
        for part in location[:-1]:
            if part in section.model_fields:  # a key of a mapping is no field
                section = next(_sections(section.model_fields[part].annotation))
        known = list(section.model_fields)
        hint = did_you_mean(location[-1], known)
        return f"{where}: unknown key {name}.{hint} Known here: {', '.join(known)}."
    if not key or (error["type"] == "value_error" and isinstance(value, dict | BaseModel)):
        return f"{where}: {message}."
    # An override of this very key already shows the value.
    where = "" if where.startswith(f"override '{key}=") else f"{where}: "
    return f"{where}{name}={shown(value)}: {message}."


def _sections(annotation: Any) -> Iterator[type[Section]]:
    if inspect.isclass(annotation) and issubclass(annotation, Section):
        yield annotation
    for inner in get_args(annotation):
        yield from _sections(inner)


def dump_config(config: Config) -> str:
    """The configuration as YAML, every key written out."""
    return write_yaml(config.model_dump(mode="json"))


def names_of_code(tree: Any) -> dict[str, list[str]]:
    """The names `package.module:Class` in the keys and values of a tree, by their keys."""
    found: dict[str, list[str]] = {}
    for path, text in _texts(tree):
        if path not in _PATHS and (names := NAME_OF_CODE.findall(text)):
            found.setdefault(".".join(path), []).extend(names)
    return found


def _texts(tree: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], str]]:
    """All keys and texts in a tree of sections, with their places."""
    if isinstance(tree, str):
        yield path, tree
    elif isinstance(tree, dict | list):
        for key, value in tree.items() if isinstance(tree, dict) else enumerate(tree):
            inside = *path, str(key)
            yield inside, str(key)
            yield from _texts(value, inside)


def read_yaml(text: str | bytes, where: str) -> Any:
    """The value in a text; `None` for an empty one. Errors say `where` it is, and the line."""
    if len(text) > _LONGEST:
        raise InputError(f"{where}: a configuration has at most {_LONGEST:,} characters.")
    try:
        return yaml.load(text if isinstance(text, str) else text.decode("utf-8-sig"), _Reader)
    except UnicodeDecodeError as error:
        raise InputError(f"{where}: no UTF-8 at byte {error.start}.") from None
    except yaml.MarkedYAMLError as error:
        mark: Any = error.problem_mark or error.context_mark
        place = f"line {mark.line + 1}, column {mark.column + 1}"
        raise InputError(f"{where}: {place}: {error.problem or error.context}.") from None
    except yaml.YAMLError as error:
        raise InputError(f"{where}: {' '.join(str(error).split())}") from None


def write_yaml(tree: Any) -> str:
    """A tree of plain values as YAML that `read_yaml` reads back."""
    return yaml.dump(tree, Dumper=_Dumper, sort_keys=False)


class _Reader(yaml.SafeLoader):
    """Reads YAML 1.2, and rejects what no configuration holds."""

    yaml_implicit_resolvers: ClassVar[dict[Any, Any]] = {}

    def compose_node(self, parent: Any, index: Any) -> Any:
        event = self.peek_event()
        if event.anchor is not None:
            raise _wrong(event, "anchors (&) and aliases (*) are not read; write it out")
        if event.tag is not None:
            raise _wrong(event, f"tags are not read; drop {short(event.tag)}")
        if len(self.marks) > _DEEPEST:
            raise _wrong(event, f"more than {_DEEPEST} sections inside each other")
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        first: dict[str, Any] = {}
        for key, _ in node.value:
            if key.tag in (f"{_TAG}int", f"{_TAG}float"):
                key.tag = f"{_TAG}str"
            if key.tag != f"{_TAG}str":
                raise _wrong(key, "a key is a name; write it in quotes if it is one")
            if (before := first.setdefault(key.value, key)) is not key:
                line = before.start_mark.line + 1
                raise _wrong(key, f"{short(key.value)} is given twice, first in line {line}")
        return super().construct_mapping(node, deep)


def _wrong(part: Any, problem: str) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=problem, problem_mark=part.start_mark)


class _Dumper(yaml.SafeDumper):
    """Quotes every text that a reader of YAML 1.1 or 1.2 would take for something else."""


_TAG = "tag:yaml.org,2002:"
_FLOAT = (
    r"[-+]?(?:(?:[0-9]+\.[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?|[0-9]+[eE][-+]?[0-9]+"
    r"|\.(?:inf|Inf|INF))|\.(?:nan|NaN|NAN)"
)
for _name, _pattern in {
    "null": "~|null|Null|NULL|",
    "bool": "true|True|TRUE|false|False|FALSE",
    # No configuration holds an integer of more digits.
    "int": "[-+]?(?:0|[1-9][0-9_]{0,99})",
    "float": _FLOAT,
}.items():
    _Reader.add_implicit_resolver(_TAG + _name, re.compile(rf"(?:{_pattern})\Z"), None)
_Dumper.add_implicit_resolver(f"{_TAG}float", re.compile(rf"(?:{_FLOAT})\Z"), None)
