"""Configurations of earlier releases, brought up to date."""

from collections.abc import Mapping
from typing import Any

import jax

from .names import shown


VERSION = 2

# Values of version 1 that have another name now, by section and key.
_RENAMED: dict[tuple[str, str], dict[str, str]] = {
    ("training", "gradient"): {"checkpoint": "recompute"},
    ("model", "operators"): {"injected_attention": "sourced_attention"},
    ("model", "normalization"): {"none": "free"},
    ("model", "input_normalization"): {"none": "free"},
    ("model", "positions"): {"learned": "no_positions"},
    ("solver", "options"): {"rmsnorm": "rms_norm", "rmssphere": "rms_sphere"},
}


def upgraded(tree: Mapping[str, Any]) -> dict[str, Any]:
    """A tree of sections in the words of this release. One without a version is of version 1.

    **Raises:** `ValueError` for a version that is not known.
    """
    version = tree.get("version", 1)
    if type(version) is not int or version not in (1, VERSION):
        raise ValueError(
            f"version={shown(version)}: this release of ide_transformer reads versions up "
            f"to {VERSION}; install the release that wrote the configuration, or a later one"
        )
    tree = {**tree, "version": VERSION}
    if version == VERSION:
        return tree
    sections = {name: dict(x) for name, x in tree.items() if isinstance(x, Mapping)}
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
