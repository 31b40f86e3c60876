"""The run with whose weights another one begins, see `model.pretrained`."""

from pathlib import Path
from typing import Any

from ..pretrained.checkpoint import PACKAGES
from .config import NATIVE
from .reading import Trust, load_config


_CONFIG = "config.yaml"


def filled(tree: dict[str, Any], trust: Trust) -> dict[str, Any]:
    """The sections of a configuration. Where `model.pretrained` names a run, they are filled
    from it: with its model, and with what is not said of the weights over depth, of the scheme
    and of the data. A section that chooses a class, by `kind` or `name`, is taken as it is.

    **Raises:** `InputError` for code that the run names and that is not trusted.
    """
    model = tree.get("model")
    given = dict(model) if isinstance(model, dict) else {}
    folder = None if given.get("run") else _run_of(given.pop("pretrained", None))
    if folder is None:
        return tree
    there = load_config(folder / _CONFIG, trust=trust).model_dump(mode="json")
    if there["data"]["tokenizer"] is not None:
        # It is that of the run, and is not learned again.
        there["data"] |= {"tokenizer": None, "vocabulary": None}
    own = {"run": str(folder.resolve()), "checkpoint": "newest"}
    sections = {"model": {**there["model"], **own, **given}}
    for name, choice in (("data", "name"), ("control", "kind"), ("solver", "kind")):
        section = tree.get(name, {})
        whole = not isinstance(section, dict) or choice in section
        sections[name] = section if whole else {**there[name], **section}
    if sections["solver"] in (NATIVE, {"kind": NATIVE}):
        sections["solver"] = there["solver"]
    return {**tree, **sections}


def _run_of(pretrained: Any) -> Path | None:
    """The folder of the run there, or of that name in `runs`; `None` for a checkpoint."""
    if not isinstance(pretrained, str):
        return None
    path = Path(pretrained)
    named = not path.exists() and pretrained not in PACKAGES
    folder = Path("runs", path) if named else path
    return folder if (folder / _CONFIG).is_file() else None
