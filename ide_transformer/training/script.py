import argparse
import itertools
import logging
import os
import signal
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import jax

from ..errors import InputError
from ..packages import cache_folder
from .checkpoints import Which
from .config import MeshSection
from .loading import LoadedModel, load_model
from .reading import read_yaml, validated
from .stopping import Stopped, end_by


def run_script(main: Callable[[], None]) -> None:
    """Runs the main function of a script. Modules in the current folder can be imported, so
    that a configuration may name classes in them. Programs that take a second or more to
    compile are kept for the next process, in the cache folder unless
    `JAX_COMPILATION_CACHE_DIR` says where.

    Input that cannot be used, files that cannot be read or written, and sizes that do not fit
    into memory are reported without a traceback, with exit status 2. Where training was stopped
    by a signal, the process ends by that signal.
    """
    sys.path.insert(0, str(Path.cwd()))
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        jax.config.update("jax_compilation_cache_dir", str(cache_folder() / "compiled"))
    # Orbax logs there, with tracebacks, what it also raises.
    logging.getLogger("absl").setLevel(logging.CRITICAL)
    sys.unraisablehook = _unraisable
    warnings.formatwarning = lambda message, *_: f"warning: {message}\n"
    try:
        main()
    except (InputError, OSError, MemoryError) as error:
        _refuse(str(error))
    except jax.errors.JaxRuntimeError as error:
        if not str(error).startswith("RESOURCE_EXHAUSTED"):
            raise
        _refuse(str(error).splitlines()[0])
    except Stopped as stopped:
        print(stopped)
        end_by(stopped.signal)
    except KeyboardInterrupt:
        end_by(signal.SIGINT)


def _refuse(message: str) -> NoReturn:
    print(f"error: {message}", file=sys.stderr)
    if jax.distributed.is_initialized():
        # At its ordinary end a process waits for the others.
        sys.stderr.flush()
        os._exit(2)
    sys.exit(2)


def _unraisable(unraisable: Any) -> None:
    """Says nothing of the other arrays of a damaged checkpoint, whose reading ends after orbax
    has raised the error of the first."""
    if str(unraisable.exc_value) != "Event loop is closed":
        sys.__unraisablehook__(unraisable)


def model_parser(description: str | None, epilog: str) -> argparse.ArgumentParser:
    """The parser of a script that takes a trained model and, if wanted, another scheme."""
    parser = argparse.ArgumentParser(
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=epilog,
    )
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
    return parser


def chosen_model(arguments: argparse.Namespace) -> LoadedModel:
    """The model that the arguments of a `model_parser` choose."""
    return load_model(
        arguments.model,
        arguments.overrides,
        checkpoint=arguments.checkpoint,
        weights=arguments.weights,
        trust=arguments.trust,
    )


def add_trust(parser: argparse.ArgumentParser) -> None:
    """The option of scripts that read the runs of others."""
    parser.add_argument(
        "--trust",
        action="store_true",
        help="of a run: import the code that its configuration names (package.module:Class)",
    )


def names(text: str) -> list[str]:
    """Texts between commas; like `integers` and `floats` the type of an argument."""
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
