"""Options of several commands, and functions that parse their texts."""

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
    """The file of a configuration: an existing one, or by its name in the package, such as
    `compare/any_depth`. Raises `InputError` for neither."""
    path = Path(text)
    if path.is_file():
        return path
    # A wheel has them inside the package, a checkout beside it.
    package = Path(__file__).parents[1]
    folder = next(x / "configs" for x in (package, package.parent) if (x / "configs").is_dir())
    files = {str(x.relative_to(folder).with_suffix("")): x for x in folder.rglob("*.yaml")}
    if text in files:
        return files[text]
    close = difflib.get_close_matches(str(path.with_suffix("")), files, 3, 0.0)
    raise InputError(
        f"{text}: there is no such file in {Path.cwd()}, or configuration of the package; the "
        f"closest are {', '.join(close)}."
    )


def add_model(parser: argparse.ArgumentParser, further: str = "") -> None:
    """Adds a trained model, changes of its configuration, and `add_weights`. `further` is the
    help of further arguments."""
    about = "a run (folder, or name in runs/), a checkpoint (folder or file), or a package"
    parser.add_argument("model", help=about)
    about = f"{further}another solver.…; for a run also data.options.… and model.context"
    parser.add_argument("overrides", nargs="*", metavar="key=value", help=about)
    add_weights(parser)


def add_weights(parser: argparse.ArgumentParser) -> None:
    """Adds the checkpoint and the weights of a run to load, and `add_trust`."""
    add = parser.add_argument
    about = "for a run: newest (default), best (the lowest validation loss), or a step"
    add("--checkpoint", type=_checkpoint, default="newest", metavar="STEP", help=about)
    about = "for a run: its weights (default), or their moving average (training.average)"
    add("--weights", choices=("trained", "average"), default="trained", help=about)
    add_trust(parser)


def _checkpoint(text: str) -> str | int:
    return text if text in ("newest", "best") else int(text)


def add_trust(parser: argparse.ArgumentParser) -> None:
    """Adds `--trust`, for commands that read runs."""
    about = "for a run: import the code that its configuration names"
    parser.add_argument("--trust", action="store_true", help=about)


def add_samples(parser: argparse.ArgumentParser) -> None:
    """Adds the number of samples, and the part of the data."""
    about = "number of samples, evenly spread (default: all)"
    parser.add_argument("--samples", type=int, help=about)
    about = "part of the data of a run (default: validation)"
    parts = "validation", "test"
    parser.add_argument("--part", choices=parts, default="validation", help=about)


def add_mesh(parser: argparse.ArgumentParser) -> None:
    """Adds `--mesh`, see `read_meshes`."""
    about = """solve on these meshes: layers, horizon, steps, rtol and atol, tokens, width;
    tokens=64,128,width=96 is two meshes, a second --mesh adds more"""
    name = "layers=2,4,8"
    parser.add_argument("--mesh", action="append", default=[], metavar=name, help=about)


def load_model_of(options: argparse.Namespace, path: str | None = None) -> "LoadedModel":
    """Loads the model that the options of `add_model` choose, or another one at `path`."""
    from ..training import load_model

    return load_model(
        options.model if path is None else path,
        options.overrides,
        checkpoint=options.checkpoint,
        weights=options.weights,
        trust=options.trust,
    )


def read_meshes(options: argparse.Namespace) -> "list[Mesh]":
    """The meshes that the options of `add_mesh` choose: one for each combination of values."""
    from ..integration import Mesh
    from ..training.configuration.reader import resolve
    from ..training.configuration.text import read_yaml

    meshes = []
    for text in options.mesh:
        key = ""
        fields: dict[str, list[Any]] = {}
        for piece in text.split(","):
            name, separator, value = piece.rpartition("=")
            key = name if separator else key
            if not key:
                raise InputError(f"--mesh {text}: use key=value, for example layers=2,4,8.")
            fields.setdefault(key, []).append(read_yaml(value, f"--mesh {text}"))
        for values in itertools.product(*fields.values()):
            meshes.append(resolve(Mesh, dict(zip(fields, values, strict=True)), "--mesh"))
    return meshes


def read_mesh(options: argparse.Namespace) -> "Mesh":
    """The mesh for a command that takes one, by default the model's own."""
    from ..integration import Mesh

    meshes = read_meshes(options) or [Mesh()]
    if len(meshes) > 1:
        raise InputError(f"--mesh {' '.join(options.mesh)}: pass one mesh, such as layers=8.")
    return meshes[0]


def results_folder(kind: str, path: str, folder: Path | None) -> Path:
    """The `folder`, or one named after a run or checkpoint. Checks that it can be written."""
    source = Path(path)
    folder = folder or Path(kind) / (source.stem if source.is_file() else source.name)
    check_can_be_written(folder / "report.json")
    return folder


def check_can_be_written(file: Path) -> None:
    """**Raises:** `InputError` where a file cannot be written. Its folder need not exist."""
    try:
        folder = next((x for x in file.parents if x.exists()), Path())
        if file.exists() and not file.is_file():
            raise OSError(0, "it is not an ordinary file")
        with tempfile.NamedTemporaryFile(dir=folder, prefix=file.name):
            pass
    except OSError as error:
        raise InputError(f"{file} cannot be written: {error.strerror}.") from None


def names(text: str) -> list[str]:
    """Texts between commas."""
    return text.split(",")


def integers(text: str) -> list[int]:
    """Integers between commas."""
    return [int(x) for x in text.split(",")]


def floats(text: str) -> list[float]:
    """Numbers between commas."""
    return [float(x) for x in text.split(",")]


def results_file(text: str) -> Path:
    """A file of results. Checks that it can be written."""
    try:
        check_can_be_written(file := Path(text))
    except InputError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return file


def input_path(text: str) -> Path:
    """A file or folder to read. Rejects an empty text, which would be the current folder."""
    if not text:
        raise argparse.ArgumentTypeError("it is empty; pass a file, or . for this folder")
    return Path(text)


def figure_file(text: str) -> Path:
    """The file of a figure. Checks its suffix, and that it can be written."""
    if Path(text).suffix.lower() not in (".png", ".pdf", ".svg"):
        raise argparse.ArgumentTypeError(f"{text}: a figure ends with .png, .pdf or .svg")
    return results_file(text)


def film_file(text: str) -> Path:
    """The file of a film. Checks its suffix, and that it can be written."""
    from ..figures.animation import check_film

    try:
        check_film(Path(text))
    except InputError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return results_file(text)
