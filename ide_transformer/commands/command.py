import argparse
import difflib
import importlib
import logging
import os
import signal
import sys
import warnings
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn

from ..errors import InputError, printable
from ..memory import keep_freed_memory
from ..packages import cache_folder, jax_fault


# Each is the module of that name, which is imported when it is asked for.
COMMANDS = {
    "train": "train a model from a configuration",
    "evaluate": "measure the loss of a model, on other meshes too",
    "sample": "write text with a language model",
    "translate": "translate held-out texts, and measure BLEU",
    "compare": "compare schemes: solve one set of weights, or train, with each",
    "depth": "solve a trained model with fewer and with more field evaluations",
    "dynamics": "read a trained model as a controlled system",
    "convergence": "measure the order of every scheme",
    "resolution": "measure the errors and the error budget of a model of functions",
    "convert": "turn a checkpoint into a run, and a run into a checkpoint",
    "report": "write an HTML page about runs",
}


def main(name: str | None = None) -> None:
    """Runs a command; its name is the first argument of the process if it is not given."""
    # An interrupt ends the process at once.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    given = sys.argv[1:]
    if name is None:
        listed = "\n".join(f"  {name:<12} {line}" for name, line in COMMANDS.items())
        parser = argparse.ArgumentParser(
            "ide-transformer",
            formatter_class=argparse.RawDescriptionHelpFormatter,
            epilog=f"commands:\n{listed}\n\nexamples:\n  ide-transformer train shakespeare\n"
            "  ide-transformer train --help",
        )
        parser.add_argument("--version", action="version", version=version("ide_transformer"))
        parser.add_argument("command", metavar="command")
        if not given:
            parser.print_help()
            sys.exit(2)
        asked: str = parser.parse_args(given[:1]).command
        name = asked
        given = given[1:]
        if name not in COMMANDS:
            close = difflib.get_close_matches(asked, COMMANDS, n=1)
            hint = f"did you mean {close[0]}? " if close else ""
            parser.error(
                f"{name}: there is no such command; {hint}It is one of {', '.join(COMMANDS)}."
            )
    module = importlib.import_module(f".{name}", __package__)
    start(module, f"ide-transformer {name}", given)


def start(module: ModuleType, name: str | None = None, given: list[str] | None = None) -> None:
    """Runs a module that has `EXAMPLES`, and functions `add_options` of a parser and `run` of
    the options; its docstring describes it."""
    parser = argparse.ArgumentParser(
        name,
        description=module.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=f"examples:\n{module.EXAMPLES}",
    )
    module.add_options(parser)
    options = parser.parse_intermixed_args(given)
    run_script(lambda: module.run(options))


def run_script(main: Callable[[], None]) -> None:
    """Runs the main function of a script. Modules in the current folder can be imported, so
    that a configuration may name classes in them; an installed module of the same name comes
    first. Programs that take a second or more to compile are kept for the next process, in the
    cache folder unless `JAX_COMPILATION_CACHE_DIR` says where. Memory that is freed is kept for
    the next step.

    Input that cannot be used, files that cannot be read or written, and sizes that do not fit
    into memory are reported without a traceback, with exit status 2. Where training was stopped
    by a signal, the process ends by that signal.
    """
    sys.path.append(str(Path.cwd()))
    # jaxlib 0.10 prints a false alarm for each program that it reads from the cache.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        os.environ["JAX_COMPILATION_CACHE_DIR"] = place = str(cache_folder() / "compiled")
        if "jax" in sys.modules:
            sys.modules["jax"].config.update("jax_compilation_cache_dir", place)
    keep_freed_memory()
    # Orbax logs there, with tracebacks, what it also raises.
    logging.getLogger("absl").setLevel(logging.CRITICAL)
    sys.unraisablehook = _unraisable
    warnings.formatwarning = lambda message, *_: f"warning: {printable(str(message))}\n"
    fault = jax_fault()
    if fault:
        _refuse(fault)
    try:
        main()
    except (InputError, OSError, MemoryError) as error:
        _refuse(str(error))
    except (KeyboardInterrupt, Exception) as error:
        import jax

        from ..training.stopping import Stopped, end_by

        if isinstance(error, Stopped):
            print(printable(str(error)))
            end_by(error.signal)
        if isinstance(error, KeyboardInterrupt):
            end_by(signal.SIGINT)
        exhausted = str(error).startswith("RESOURCE_EXHAUSTED")
        if not (exhausted and isinstance(error, jax.errors.JaxRuntimeError)):
            raise
        _refuse(str(error).splitlines()[0])


def _refuse(message: str) -> NoReturn:
    # A line that a name from a file holds does not look like one of its own.
    print(f"error: {printable(message)}".replace("\n", "\n  "), file=sys.stderr)
    if "jax" in sys.modules and sys.modules["jax"].distributed.is_initialized():
        # At its ordinary end a process waits for the others.
        sys.stderr.flush()
        os._exit(2)
    sys.exit(2)


def _unraisable(unraisable: Any) -> None:
    """Says nothing of the other arrays of a damaged checkpoint, whose reading ends after orbax
    has raised the error of the first."""
    if str(unraisable.exc_value) != "Event loop is closed":
        sys.__unraisablehook__(unraisable)
