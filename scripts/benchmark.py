"""Compares the time and memory of this package with alternatives.

Alternatives take turns, so that a disturbance of the machine affects all of them. Rows have
medians over the rounds; the spread is the range of the middle half.
"""

import argparse
import os
import platform
import re
from pathlib import Path
from typing import Any

import jax
from rich.progress import Progress

from benchmarks import against_torch, gradient, march
from benchmarks.shared.timing import Rounds
from commands import run_script
from ide_transformer import InputError
from ide_transformer.commands.options import results_file
from ide_transformer.reporting import Terminal, show_table, write_json


# Each has `EXAMPLE`, `ROUNDS`, `add_options(parser)` and `measure(options, rounds)`.
BENCHMARKS = {"torch": against_torch, "march": march, "gradient": gradient}


def main() -> None:
    formatter = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=formatter,
        epilog="example:\n  python scripts/benchmark.py gradient --help",
    )
    commands = parser.add_subparsers(required=True, metavar="WHAT")
    for name, module in BENCHMARKS.items():
        about = module.__doc__ or ""
        command = commands.add_parser(
            name,
            help=about.splitlines()[0],
            description=about,
            formatter_class=formatter,
            epilog=f"example:\n  python scripts/benchmark.py {name} {module.EXAMPLE}",
        )
        command.set_defaults(measure=module.measure)
        command.add_argument("--rounds", type=int, default=module.ROUNDS)
        command.add_argument("--json", type=results_file, help="write the rows here too")
        module.add_options(command)
    options = parser.parse_args()
    if options.rounds < 2:
        raise InputError(
            f"--rounds {options.rounds}: a median with its spread needs 2 or more."
        )
    with Progress(transient=True, console=Terminal()) as progress:
        task = progress.add_task("measuring", total=None)
        rounds = Rounds(options.rounds, lambda _: progress.advance(task))
        rows = options.measure(options, rounds)
    show_table(rows)
    hardware = machine()
    print(", ".join(f"{name}: {value}" for name, value in hardware.items()))
    if options.json:
        write_json(options.json, {"machine": hardware, "rows": rows})


def machine() -> dict[str, Any]:
    """The processor, the cores of this process, the device, and the version of JAX."""
    cpuinfo = Path("/proc/cpuinfo")
    text = cpuinfo.read_text(encoding="utf-8") if cpuinfo.exists() else ""
    model_name = re.search(r"^model name\s*: (.+)$", text, re.M)
    cores = getattr(os, "sched_getaffinity", lambda _: range(os.cpu_count() or 0))(0)
    return {
        "processor": model_name[1]
        if model_name
        else platform.processor() or platform.machine(),
        "cores": len(cores),
        "device": jax.devices()[0].device_kind,
        "jax": jax.__version__,
    }


if __name__ == "__main__":
    run_script(main)
