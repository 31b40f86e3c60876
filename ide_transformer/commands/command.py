"""Finds a command by its name, and runs it.

A command is a module with `EXAMPLES`, `add_options(parser)` and `run(options)`; its docstring
is the help. A package adds commands by entry points of the group `ide_transformer.commands`:

    [project.entry-points."ide_transformer.commands"]
    waves = "mine.waves"
"""

import argparse
import importlib
import logging
import os
import re
import signal
import sys
import warnings
from collections.abc import Callable
from importlib.metadata import entry_points, version
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn

from ..errors import InputError, did_you_mean, printable
from ..memory import keep_freed_memory
from ..packages import cache_folder, require_training


# The modules of this folder, which are imported when they are used.
COMMANDS = {
    "train": "train a model from a configuration",
    "evaluate": "measure the loss of models, on other meshes too",
    "sample": "write text with a language model",
    "compare": "compare schemes: solve one set of weights, or train, with each",
    "rollout": "apply a learned flow map to its own outputs",
    "convergence": "measure the order of every scheme",
    "convert": "turn a checkpoint into a run, and a run into a checkpoint",
    "report": "write an HTML page about runs",
    "schema": "print a JSON schema of configurations, for editors",
}
GROUP = "ide_transformer.commands"


def main(name: str | None = None) -> None:
    """Runs the command `name`, by default the first argument of the process."""
    # An interrupt ends the process at once.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    arguments = sys.argv[1:]
    if name is None:
        if not arguments or arguments[0] in ("-h", "--help"):
            print("usage: ide-transformer COMMAND [OPTIONS] | --help | --version\n\ncommands:")
            for command, about in list_commands().items():
                print(f"  {command:<12} {about}")
            print("\nexamples:\n  ide-transformer train shakespeare")
            print("  ide-transformer train --help")
            sys.exit(0 if arguments else 2)
        if arguments[0] == "--version":
            print(version("ide_transformer"))
            sys.exit(0)
        name, *arguments = arguments
    run_script(lambda: _run(load_command(name), f"ide-transformer {name}", arguments))


def load_command(name: str) -> ModuleType:
    """The module of a command, from this folder or an installed package.

    **Raises:** `InputError` for an unknown name, or a module that cannot be imported.
    """
    if name in COMMANDS:
        return importlib.import_module(f".{name}", __package__)
    entries = {entry.name: entry for entry in entry_points(group=GROUP)}
    if name not in entries:
        names = [*COMMANDS, *entries]
        raise InputError(
            f"{name}: there is no such command.{did_you_mean(name, names)} It is one of "
            f"{', '.join(names)}."
        )
    try:
        return entries[name].load()
    except ImportError as error:
        raise InputError(
            f"{name}: {entries[name].value} cannot be imported: {error}"
        ) from error


def list_commands() -> dict[str, str]:
    """One line of help for each command, by name."""
    lines = dict(COMMANDS)
    for name in sorted(entry_points(group=GROUP).names - COMMANDS.keys()):
        try:
            # The first clause.
            about = re.split("[.:\n]", load_command(name).__doc__ or "")[0]
            lines[name] = about[:1].lower() + about[1:]
        except Exception as error:
            lines[name] = f"cannot be loaded: {error}"
    return lines


def start(module: ModuleType) -> None:
    """Runs the module of a command, as a script of its own."""
    run_script(lambda: _run(module))


def _run(
    module: ModuleType, name: str | None = None, arguments: list[str] | None = None
) -> None:
    require_training()
    parser = argparse.ArgumentParser(
        name,
        description=module.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=f"examples:\n{module.EXAMPLES}",
    )
    module.add_options(parser)
    options, unknown = parser.parse_known_intermixed_args(arguments)
    if unknown:
        names = re.findall(r"--[\w-]+", parser.format_usage())
        hint = did_you_mean(unknown[0].partition("=")[0], names)
        parser.error(f"unrecognized arguments: {' '.join(unknown)}.{hint}")
    module.run(options)


def run_script(main: Callable[[], None]) -> None:
    """Runs the main function of a script, and reports its errors in one line.

    Configurations may name classes of modules in the current folder; an installed module of
    the same name comes first. `JAX_COMPILATION_CACHE_DIR` or the cache folder keeps programs.

    The process ends with status 2 for bad input, files that cannot be read or written, and
    sizes that do not fit into memory. A signal that stopped training ends the process too.
    """
    sys.path.append(str(Path.cwd()))
    # jaxlib 0.10 prints a false alarm for each program that it reads from the cache.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    # The many small programs of a start are loaded sooner than they are compiled again.
    settings = {
        "jax_compilation_cache_dir": str(cache_folder() / "compiled"),
        "jax_persistent_cache_min_compile_time_secs": 0.0,
    }
    for name, value in settings.items():
        if name.upper() not in os.environ:
            os.environ[name.upper()] = str(value)
            if "jax" in sys.modules:
                sys.modules["jax"].config.update(name, value)
    keep_freed_memory()
    # Orbax logs errors with tracebacks and also raises them.
    logging.getLogger("absl").setLevel(logging.CRITICAL)
    sys.unraisablehook = _unraisable
    warnings.formatwarning = lambda message, *_: f"warning: {printable(str(message))}\n"
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
    # A name from a file may hold a line that looks like a message of its own.
    print(f"error: {printable(message)}".replace("\n", "\n  "), file=sys.stderr)
    if "jax" in sys.modules and sys.modules["jax"].distributed.is_initialized():
        # At its ordinary end a process waits for the others.
        sys.stderr.flush()
        os._exit(2)
    sys.exit(2)


def _unraisable(unraisable: Any) -> None:
    # Reading the other arrays of a damaged checkpoint ends after orbax has raised.
    if str(unraisable.exc_value) != "Event loop is closed":
        sys.__unraisablehook__(unraisable)
