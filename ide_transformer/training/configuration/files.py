"""The files of configurations, what a run takes over from another, and overrides
`a.b=value`."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from ...errors import InputError, short, shown
from ...pretrained.checkpoint import PACKAGES
from .config import Config
from .model import NATIVE
from .reader import NAME_OF_CODE
from .section import MOST_SAID, some_of, validated
from .yaml_text import LONGEST, read_yaml, write_yaml


# Whether code that a file names may be imported, or a configuration whose names may.
Trust: TypeAlias = bool | Config
# Keys of files and folders, in whose names a colon is one of the system.
_PATHS = ("data", "path"), ("model", "pretrained"), ("model", "run")


def load_config(
    path: str | Path, overrides: Sequence[str] = (), *, trust: Trust | None = None
) -> Config:
    """The configuration in a YAML file, with overrides `section.key=value` applied. An empty
    value, `section.key=`, drops the key from the file.

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
    return config_of(tree, str(path), origin, trust=trust)


def config_of(
    tree: dict[str, Any],
    where: str,
    origin: dict[str, str] | None = None,
    *,
    trust: Trust | None = None,
) -> Config:
    """The configuration in a tree that was written at the place `where`, with what it inherits;
    `origin` has the override that gave a key."""
    return validated(Config, inherit(tree, trust or False), where, origin)


def as_config(config: Config | str | Path) -> Config:
    """A configuration with what it inherits, or that in the YAML file of this path."""
    if not isinstance(config, Config):
        return load_config(config)
    tree = config.model_dump(mode="json", exclude_unset=True)
    inherited = inherit(tree, False)
    return config if inherited is tree else validated(Config, inherited, "config")


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
            f"{some_of(foreign[:MOST_SAID], len(foreign), '; ')}. If you trust it, give "
            "--trust (in Python trust=True, in a comparison trust: true)."
        )


def inherit(tree: dict[str, Any], trust: Trust) -> dict[str, Any]:
    """A tree with what it takes over from the run that `model.pretrained` names: the model,
    and of the sections `data`, `control` and `solver`, and their `options`, what it does not
    give. Such a section that chooses a class, by `kind` or `name`, is taken as it is."""
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
    """Change a tree of sections by overrides; the override that gave each key. An override
    without a value, or with null, drops its key."""
    origin: dict[str, str] = {}
    for override in overrides:
        where = f"override {shown(override)}"
        key, separator, text = override.partition("=")
        *parents, last = path = key.split(".")
        if not separator or not all(path):
            raise InputError(
                f"{shown(override)} is not an override; write section.key=value, for example "
                "model.layers=8."
            )
        branch = tree
        for depth, part in enumerate(parents, 1):
            branch = branch.setdefault(part, {})
            if not isinstance(branch, dict):
                section = ".".join(parents[:depth])
                raise InputError(f"{where}: {section} is a value, not a section.")
        value = read_yaml(text, where, tuple(path))
        if value is None:
            branch.pop(last, None)
        else:
            branch[last] = value
        for other, earlier in origin.items():
            if f"{other}.".startswith(f"{key}."):
                raise InputError(f"{where}: {key} would replace {earlier}; drop one of them.")
        origin[key] = where
    return origin


def dump_config(config: Config) -> str:
    """The configuration as YAML, every key written out."""
    return write_yaml(config.model_dump(mode="json"))


def names_of_code(tree: Any) -> dict[str, list[str]]:
    """The names `package.module:Class` in a tree of sections, by the keys where they stand: in
    a value, or in the key itself."""
    found: dict[str, list[str]] = {}
    for path, text in _texts(tree):
        if path not in _PATHS and (names := NAME_OF_CODE.findall(text)):
            found.setdefault(".".join(path), []).extend(names)
    return found


def _texts(tree: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], str]]:
    """The texts in a tree of sections, its keys among them, with their places."""
    if isinstance(tree, str):
        yield path, tree
    elif isinstance(tree, dict | list):
        for key, value in tree.items() if isinstance(tree, dict) else enumerate(tree):
            inside = *path, str(key)
            yield inside, str(key)
            yield from _texts(value, inside)
