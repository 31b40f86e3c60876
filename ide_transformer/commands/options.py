"""Options that commands share, and what their texts mean."""

import argparse
import difflib
import itertools
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import InputError


if TYPE_CHECKING:
    from ..integration import Mesh
    from ..training import LoadedModel


def packaged() -> dict[str, Path]:
    """The configurations that come with the package, by name, such as `compare/any_depth`."""
    # In a wheel they are inside the package, in a checkout beside it.
    package = Path(__file__).parents[1]
    place = package / "configs"
    if not place.is_dir():
        place = package.parent / "configs"
    return {str(x.relative_to(place).with_suffix("")): x for x in place.rglob("*.yaml")}


def config_file(text: str) -> Path:
    """The file of a configuration: one that is there, or a packaged one by its name."""
    given = Path(text)
    return given if given.is_file() else packaged().get(text, given)


def no_config(text: Path) -> InputError:
    """The error for neither a file nor a packaged configuration."""
    if text.suffix or len(text.parts) > 1:
        return InputError(f"{text}: there is no such configuration file (in {Path.cwd()}).")
    close = difflib.get_close_matches(str(text), packaged(), 3, 0.0)
    return InputError(
        f"{text}: there is no such configuration file, and no configuration of that name comes "
        f"with the package; the closest are {', '.join(close)}."
    )


def add_model(parser: argparse.ArgumentParser, others: str = "") -> None:
    """A trained model and, if wanted, another scheme, beside `others`."""
    parser.add_argument(
        "model",
        help="the folder of a run or its name in runs/, the folder or file of a checkpoint, or "
        "a package",
    )
    parser.add_argument(
        "overrides",
        nargs="*",
        metavar="key=value",
        help=f"{others}another scheme, solver.…; of a run other data of its task, "
        "data.options.…, or a longer model.context",
    )
    add_weights(parser)


def add_weights(parser: argparse.ArgumentParser) -> None:
    """The options of commands that read the weights of a run."""
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


def chosen_model(options: argparse.Namespace, path: str | None = None) -> "LoadedModel":
    """The model that the options of `add_model` choose, or that at another `path`."""
    from ..training import load_model

    return load_model(
        options.model if path is None else path,
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


def results_folder(kind: str, path: str, given: Path | None) -> Path:
    """The folder that was given, or one named after a run or checkpoint.

    **Raises:** `InputError` where nothing can be written there.
    """
    place = Path(path)
    folder = given or Path(kind) / (place.stem if place.is_file() else place.name)
    check_can_be_written(folder / "report.json")
    return folder


def check_can_be_written(file: Path) -> None:
    """Refuses a file of results before anything is measured, where it cannot be written; its
    folder need not be there."""
    try:
        there = next((x for x in file.parents if x.exists()), Path())
        if file.exists() and not file.is_file():
            raise OSError(0, "it is a folder" if file.is_dir() else "it is no ordinary file")
        with tempfile.NamedTemporaryFile(dir=there, prefix=file.name):
            pass
    except OSError as error:
        raise InputError(f"{file} cannot be written: {error.strerror}.") from None


def names(text: str) -> list[str]:
    """Texts between commas; like `integers` and `floats` the type of an option."""
    return text.split(",")


def integers(text: str) -> list[int]:
    """Whole numbers between commas."""
    return [int(number) for number in text.split(",")]


def floats(text: str) -> list[float]:
    """Numbers between commas."""
    return [float(number) for number in text.split(",")]


def meshes(text: str) -> "list[Mesh]":
    """Meshes `key=value,value,key=value`, one for each combination of the values."""
    from ..training import read_mesh
    from ..training.configuration.files import read_yaml

    fields: dict[str, list[Any]] = {}
    for piece in text.split(","):
        name, given, value = piece.rpartition("=")
        if given:
            key = name
            if key in fields:
                raise InputError(
                    f"--mesh {text}: {key} is given twice; write {key}=…,…, or a second --mesh."
                )
            fields[key] = []
        elif not fields:
            raise InputError(f"--mesh {text}: write key=value, for example layers=2,4,8.")
        fields[key].append(read_yaml(value, f"--mesh {text}"))
    return [
        read_mesh(dict(zip(fields, values, strict=True)), "--mesh")
        for values in itertools.product(*fields.values())
    ]


def results_file(text: str) -> Path:
    """A file of results, which can be written."""
    try:
        check_can_be_written(file := Path(text))
    except InputError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return file


def given_path(text: str) -> Path:
    """A file or folder that is read; an empty text would be the current folder."""
    if not text:
        raise argparse.ArgumentTypeError("it is empty; give a file, or . for this folder")
    return Path(text)


def figure_file(text: str) -> Path:
    """The file of a figure, which can be written."""
    if Path(text).suffix.lower() not in (".png", ".pdf", ".svg"):
        raise argparse.ArgumentTypeError(f"{text}: a figure ends with .png, .pdf or .svg")
    return results_file(text)


def _checkpoint(text: str) -> str | int:
    return text if text in ("newest", "best") else int(text)
