"""Configurations of earlier releases, brought up to date."""

from collections.abc import Mapping
from typing import Any

import jax

from .names import shown


VERSION = 3

# Values of version 1 that have another name now, by section and key.
_RENAMED: dict[tuple[str, str], dict[str, str]] = {
    ("training", "gradient"): {"checkpoint": "recompute"},
    ("model", "operators"): {"injected_attention": "sourced_attention"},
    ("model", "normalization"): {"none": "free"},
    ("model", "input_normalization"): {"none": "free"},
    ("model", "positions"): {"learned": "no_positions"},
    ("solver", "options"): {"rmsnorm": "rms_norm", "rmssphere": "rms_sphere"},
}


# Values of `data` that runs of versions before 3 wrote where none was given.
_NOT_GIVEN = {"tokenizer": "characters", "vocabulary": 512, "validation": 0.1, "test": 0.0}


def upgraded(tree: Mapping[str, Any]) -> dict[str, Any]:
    """A tree of sections in the words of this release. One without a version is of version 1.

    **Raises:** `ValueError` for a version that is not known.
    """
    version = tree.get("version", 1)
    if type(version) is not int or version not in range(1, VERSION + 1):
        raise ValueError(
            f"version={shown(version)}: this release of ide_transformer reads versions up "
            f"to {VERSION}; install the release that wrote the configuration, or a later one"
        )
    tree = {**tree, "version": VERSION}
    if version == VERSION:
        return tree
    sections = {name: dict(x) for name, x in tree.items() if isinstance(x, Mapping)}
    data = sections.get("data", {})
    # Runs wrote all of them.
    if data.keys() >= _NOT_GIVEN.keys():
        given = {k: x for k, x in data.items() if k not in _NOT_GIVEN or x != _NOT_GIVEN[k]}
        sections["data"] = given
    if version == 2:
        return {**tree, **sections}
    for (section, key), names in _RENAMED.items():
        if key in sections.get(section, {}):
            sections[section][key] = _renamed(sections[section][key], names)
    model = sections.get("model", {})
    if model.get("activation") == "swiglu":
        operators = model.get("operators", ["attention", "feed_forward"])
        model["operators"] = _renamed(operators, {"feed_forward": "gated_feed_forward"})
        model["activation"] = "silu"
    return {**tree, **sections}


def _renamed(value: Any, names: Mapping[str, str]) -> Any:
    """A value with each name in it renamed."""
    return jax.tree.map(lambda x: names.get(x, x), value)
