"""Options that commands share, and what their texts mean."""

import argparse
import difflib
import itertools
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..training import LoadedModel, load_model, validated
from ..training.checkpoints import Which
from ..training.config import MeshSection
from ..training.reading import read_yaml


# In a wheel the configurations are inside the package, in a checkout beside it.
_PACKAGE = Path(__file__).parents[1]
_PACKAGED = next(
    (path for path in (_PACKAGE / "configs", _PACKAGE.parent / "configs") if path.is_dir()),
    _PACKAGE,
)


def config_file(text: str) -> Path:
    """The file of a configuration: one that is there, or a packaged one by its name, such as
    `shakespeare` or `compare/any_depth`."""
    given, packaged = Path(text), (_PACKAGED / text).with_suffix(".yaml")
    if given.is_file() or given.suffix == ".yaml" or not packaged.is_file():
        return given
    return packaged


def no_config(text: Path) -> InputError:
    """The error for neither a file nor a packaged configuration."""
    found = (path.relative_to(_PACKAGED) for path in _PACKAGED.rglob("*.yaml"))
    names = sorted(str(path.with_suffix("")) for path in found)
    close = difflib.get_close_matches(str(text.with_suffix("")), names, 5, 0.5) or names
    return InputError(
        f"{text}: there is no such configuration file, and no configuration of that name comes "
        f"with the package; it has {', '.join(close)}."
    )


def add_config(parser: argparse.ArgumentParser, more: str = "") -> None:
    """The configuration of a run, and values in place of its own."""
    about = "a YAML file, or the name of a configuration of the package, as in configs/"
    parser.add_argument("config", help=about + more)
    parser.add_argument(
        "overrides", nargs="*", metavar="key=value", help="for example model.depth=8"
    )


def add_model(parser: argparse.ArgumentParser) -> None:
    """A trained model and, if wanted, another scheme."""
    parser.add_argument(
        "model", help="the folder of a run, the folder or file of a checkpoint, or a package"
    )
    parser.add_argument(
        "overrides",
        nargs="*",
        metavar="key=value",
        help="another scheme, solver.…; of a run other data of its task, data.options.…, or a "
        "longer model.context",
    )
    parser.add_argument(
        "--checkpoint",
        type=_checkpoint,
        default="newest",
        metavar="newest|best|STEP",
        help="of a run: the newest (default), that of the lowest validation loss, or of a step",
    )
    parser.add_argument(
        "--weights",
        choices=("trained", "average"),
        default="trained",
        help="of a run: as they are (default), or their moving average (training.average)",
    )
    add_trust(parser)


def chosen_model(options: argparse.Namespace) -> LoadedModel:
    """The model that the options of `add_model` choose."""
    return load_model(
        options.model,
        options.overrides,
        checkpoint=options.checkpoint,
        weights=options.weights,
        trust=options.trust,
    )


def add_trust(parser: argparse.ArgumentParser) -> None:
    """The option of commands that read the runs of others."""
    parser.add_argument(
        "--trust",
        action="store_true",
        help="of a run: import the code that its configuration names (package.module:Class)",
    )


def names(text: str) -> list[str]:
    """Texts between commas; like `integers` and `floats` the type of an option."""
    return text.split(",")


def integers(text: str) -> list[int]:
    """Whole numbers between commas."""
    return [int(number) for number in text.split(",")]


def floats(text: str) -> list[float]:
    """Numbers between commas."""
    return [float(number) for number in text.split(",")]


def mesh_sections(text: str) -> list[MeshSection]:
    """Meshes `key=value,value,key=value`, one for each combination of the values."""
    fields: dict[str, list[Any]] = {}
    for piece in text.split(","):
        name, given, value = piece.rpartition("=")
        if given:
            key = name
            fields[key] = []
        elif not fields:
            raise InputError(f"--mesh {text}: write key=value, for example intervals=2,4,8.")
        fields[key].append(read_yaml(value, f"--mesh {text}"))
    return [
        validated(MeshSection, dict(zip(fields, values, strict=True)), f"--mesh {text}")
        for values in itertools.product(*fields.values())
    ]


def figure_file(text: str) -> Path:
    """The file of a figure."""
    if Path(text).suffix.lower() not in (".png", ".pdf", ".svg"):
        raise argparse.ArgumentTypeError(f"{text}: a figure ends with .png, .pdf or .svg")
    return Path(text)


def _checkpoint(text: str) -> Which:
    return text if text in ("newest", "best") else int(text)
