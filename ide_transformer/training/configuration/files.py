"""Reads configuration files, with the settings that a run inherits from another."""

from collections.abc import Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeAlias, TypeVar

from ...errors import ConfigError, InputError, short, shown
from ...pretrained.checkpoint import PACKAGES
from .config import Config
from .key import Key, Place, Places
from .model import NATIVE
from .section import Section
from .text import Tree, apply_overrides, names_of_code, read_file, write_yaml


# Whether code that a file names may be imported. A configuration allows the code that it names.
Trust: TypeAlias = bool | Config

S = TypeVar("S", bound=Section)


def load_config(
    path: str | Path, overrides: Sequence[str] = (), *, trust: Trust | None = None
) -> Config:
    """Reads the configuration in a YAML file, and applies overrides `section.key=value`. An
    empty value, `section.key=`, removes the key.

    **Arguments:**

    - `trust`: see `read_tree`.

    **Raises:** `InputError` that names a wrong key and its place; for code that is not trusted.
    """
    tree = read_tree(path := Path(path), trust=trust)
    tree.setdefault("name", path.stem)
    apply_overrides(tree, overrides)
    return config_of(tree, trust=trust)


def config_of(
    tree: dict[str, Any], where: str | None = None, *, trust: Trust | None = None
) -> Config:
    """Reads a configuration from a tree, with the settings that it inherits. For `where` see
    `read_section`."""
    places = getattr(tree, "places", {})
    return read_section(Config, inherit(tree, trust or False), where=where, places=places)


def as_config(config: Config | str | Path) -> Config:
    """A configuration, or the one in this YAML file, with the settings that it inherits."""
    if not isinstance(config, Config):
        return load_config(config)
    tree = config.changes()
    inherited = inherit(tree, False)
    return config if inherited is tree else read_section(Config, inherited)


def read_tree(path: str | Path, *, trust: Trust | None = None) -> Tree:
    """The sections of a YAML file, with the line of each key. Only the code that they name is
    checked.

    **Arguments:**

    - `trust`: whether code that the file names, `package.module:Class`, may be imported; a
      configuration allows the code that it names. Default: yes, but not in the folder of a run.

    **Raises:** `InputError` for code that is not trusted.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: there is no such file.")
    tree, places = read_file(path)
    tree = {} if tree is None else tree
    if not isinstance(tree, dict):
        raise InputError(f"{path}: expected sections such as `model:`, got {shown(tree)}.")
    is_of_run = (path.parent / "checkpoints").is_dir()
    check_code(tree, path, not is_of_run if trust is None else trust)
    return Tree(tree, places)


def check_code(tree: Any, path: Path, trust: Trust) -> None:
    """**Raises:** `InputError` if the tree from this file names code that is not trusted."""
    if trust is True:
        return
    trusted = names_of_code(trust.as_tree()).values() if trust else ()
    foreign = [
        f"{short(key)} names {short(name)}"
        for key, names in names_of_code(tree).items()
        for name in names
        if not any(name in names_of_key for names_of_key in trusted)
    ]
    if foreign:
        raise InputError(
            f"{path} names code of its own: {'; '.join(foreign[:20])}. If you trust it, pass "
            "--trust (Python: trust=True)."
        )


def inherit(tree: dict[str, Any], trust: Trust) -> dict[str, Any]:
    """Completes a tree from the run that `model.pretrained` names: the model, and the keys of
    `data`, `control` and `solver` that are not set, unless a section chooses another class."""
    model = tree.get("model")
    changes = dict(model) if isinstance(model, dict) else {}
    pretrained = changes.pop("pretrained", None)
    folder = find_run(pretrained if isinstance(pretrained, str) else "")
    if changes.get("run") or not pretrained or not (folder / "config.yaml").is_file():
        return tree
    run = load_config(folder / "config.yaml", trust=trust).as_tree()
    if run["data"]["tokenizer"] is not None:
        # The tokenizer of the run is used, so none is learned.
        run["data"] |= {"tokenizer": None, "vocabulary": None}
    start = {"run": str(folder.resolve()), "checkpoint": "newest"}
    sections = {"model": {**run["model"], **start, **changes}}
    for name, choice in (("data", "name"), ("control", "kind"), ("solver", "kind")):
        section = tree.get(name, {})
        options = section.get("options", {}) if isinstance(section, dict) else None
        sections[name] = section
        if isinstance(options, dict) and choice not in section:
            options = {**run[name]["options"], **options}
            sections[name] = {**run[name], **section, "options": options}
    if sections["solver"] in (NATIVE, {"kind": NATIVE}):
        sections["solver"] = run["solver"]
    return {**tree, **sections}


def find_run(path: str | Path) -> Path:
    """The run of this name in `runs`, unless the path exists or a package has the name."""
    run = Path("runs", path)
    is_other = Path(path).exists() or str(path) in PACKAGES
    return run if not is_other and (run / "config.yaml").is_file() else Path(path)


def read_section(
    kind: type[S],
    tree: Any,
    *,
    key: str = "",
    where: str | None = None,
    places: Places | None = None,
) -> S:
    """Makes a section from a tree of plain values.

    **Arguments:**

    - `key`: the key of the section, which begins the keys in errors.
    - `where`: the place of keys that have none, in errors.
    - `places`: the places of its keys. Default: those of a tree from `read_tree`.

    **Raises:** `InputError` that begins with the place of a wrong key and the key, and names
    its value, what is accepted and the nearest name.
    """
    places = dict(getattr(tree, "places", {}) if places is None else places)
    if where is not None:
        places.setdefault("", Place(where, ""))
    try:
        return kind.read(tree, Key(key, places))
    except RecursionError:
        raise ConfigError(
            f"{Key(key, places)}: it has too many levels inside each other."
        ) from None


def override_config(
    config: Config, overrides: Sequence[str], places: Places = MappingProxyType({})
) -> Config:
    """Applies overrides `section.key=value` to a configuration. Errors name the `places` of
    keys that are overridden, by default the command line."""
    tree = Tree(config.as_tree(), config.key.places)
    apply_overrides(tree, overrides)
    for name in places:
        tree.set_places(name, places)
    return read_section(Config, tree)


def dump_config(config: Config) -> str:
    """The configuration as YAML, every key written out."""
    return write_yaml(config.as_tree())
