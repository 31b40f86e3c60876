"""Options that several commands have, and how their texts are read."""

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


def config_file(text: str) -> Path:
    """The file of a configuration: an existing file, or one of the package by its name, such
    as `compare/any_depth`."""
    given = Path(text)
    return given if given.is_file() else _packaged().get(text, given)


def no_config(file: Path) -> InputError:
    """The error for a file that `config_file` did not find."""
    close = difflib.get_close_matches(str(file.with_suffix("")), _packaged(), 3, 0.0)
    return InputError(
        f"{file}: there is no such configuration file (in {Path.cwd()}), and no configuration "
        f"of that name comes with the package; the closest are {', '.join(close)}."
    )


def _packaged() -> dict[str, Path]:
    # In a wheel they are inside the package, in a checkout beside it.
    package = Path(__file__).parents[1]
    place = package / "configs"
    if not place.is_dir():
        place = package.parent / "configs"
    return {str(x.relative_to(place).with_suffix("")): x for x in place.rglob("*.yaml")}


def add_model(parser: argparse.ArgumentParser, others: str = "") -> None:
    """Adds a trained model, changes of its configuration, and `add_weights`."""
    about = "a run (folder, or name in runs/), a checkpoint (folder or file), or a package"
    parser.add_argument("model", help=about)
    about = f"{others}another solver.…; of a run also data.options.… and model.context"
    parser.add_argument("overrides", nargs="*", metavar="key=value", help=about)
    add_weights(parser)


def add_weights(parser: argparse.ArgumentParser) -> None:
    """Adds which weights of a run are loaded, and `add_trust`."""
    parser.add_argument(
        "--checkpoint",
        type=lambda text: text if text in ("newest", "best") else int(text),
        default="newest",
        metavar="newest|best|STEP",
        help="of a run: the newest (default), or the one with the lowest validation loss",
    )
    parser.add_argument(
        "--weights",
        choices=("trained", "average"),
        default="trained",
        help="of a run: its weights (default), or their moving average (training.average)",
    )
    add_trust(parser)


def add_trust(parser: argparse.ArgumentParser) -> None:
    """Adds `--trust`, for commands that read runs."""
    parser.add_argument(
        "--trust",
        action="store_true",
        help="of a run: import the code that its configuration names",
    )


def chosen_model(options: argparse.Namespace, path: str | None = None) -> "LoadedModel":
    """The model that the options of `add_model` choose, or the one at `path`."""
    from ..training import load_model

    return load_model(
        options.model if path is None else path,
        options.overrides,
        checkpoint=options.checkpoint,
        weights=options.weights,
        trust=options.trust,
    )


def add_samples(parser: argparse.ArgumentParser) -> None:
    """Adds which samples of the data are measured."""
    about = "number of samples, evenly spread (default: all)"
    parser.add_argument("--samples", type=int, help=about)
    add_part(parser)


def add_part(parser: argparse.ArgumentParser) -> None:
    """Adds `--part`."""
    parser.add_argument(
        "--part",
        choices=("validation", "test"),
        default="validation",
        help="part of the data of a run (default: validation)",
    )


def add_mesh(parser: argparse.ArgumentParser) -> None:
    """Adds `--mesh`, which may be given several times."""
    parser.add_argument(
        "--mesh",
        action="append",
        default=[],
        metavar="layers=2,4,8",
        help="solve on these meshes: layers, horizon, steps, solver, tokens, width; "
        "tokens=64,128,width=96 is two meshes, a second --mesh adds more",
    )


def chosen_meshes(options: argparse.Namespace) -> "list[Mesh]":
    """The meshes that the options of `add_mesh` choose."""
    return [mesh for text in options.mesh for mesh in meshes(text)]


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


def one_mesh(text: str | None) -> "Mesh":
    """The mesh of an option that takes one; without a text the model's own."""
    from ..integration import Mesh

    if text is None:
        return Mesh()
    mesh, *others = meshes(text)
    if others:
        raise InputError(f"--mesh {text}: give one mesh here, for example layers=8.")
    return mesh


def results_folder(kind: str, path: str, given: Path | None) -> Path:
    """The folder `given`, or one named after a run or checkpoint; it can be written."""
    place = Path(path)
    folder = given or Path(kind) / (place.stem if place.is_file() else place.name)
    check_can_be_written(folder / "report.json")
    return folder


def check_can_be_written(file: Path) -> None:
    """**Raises:** `InputError` where a file of results cannot be written. Its folder need not
    exist."""
    try:
        there = next((x for x in file.parents if x.exists()), Path())
        if file.exists() and not file.is_file():
            raise OSError(0, "it is no ordinary file")
        with tempfile.NamedTemporaryFile(dir=there, prefix=file.name):
            pass
    except OSError as error:
        raise InputError(f"{file} cannot be written: {error.strerror}.") from None


def names(text: str) -> list[str]:
    """Texts between commas."""
    return text.split(",")


def integers(text: str) -> list[int]:
    """Whole numbers between commas."""
    return [int(number) for number in text.split(",")]


def floats(text: str) -> list[float]:
    """Numbers between commas."""
    return [float(number) for number in text.split(",")]


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
