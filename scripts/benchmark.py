"""Measures what this package costs, in time and in memory, against the alternatives.

Alternatives take turns, so that what disturbs the machine disturbs all of them; figures are
medians over the rounds, with the range of the middle half as their spread.
"""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.progress import Progress

import benchmarks
from ide_transformer.training import run_script


def march(arguments: argparse.Namespace, on_round: Callable) -> list[dict]:
    shape = shape_of(arguments)
    return [
        row
        for scheme in arguments.scheme or benchmarks.SCHEMES
        for depth in arguments.depth
        for row in benchmarks.march(
            scheme, depth, shape, rounds=arguments.rounds, on_round=on_round
        )
    ]


def gradient(arguments: argparse.Namespace, on_round: Callable) -> list[dict]:
    shape = shape_of(arguments)
    return [
        row
        for normalization in arguments.normalization or benchmarks.NORMALIZATIONS
        for depth in arguments.depth
        for row in benchmarks.gradient(
            normalization, depth, shape, rounds=arguments.rounds, on_round=on_round
        )
    ]


def compiling(arguments: argparse.Namespace, on_round: Callable) -> list[dict]:
    shape = shape_of(arguments)
    return [
        row
        for depth in arguments.depth
        for row in benchmarks.compiling(
            depth, shape, rounds=arguments.rounds, on_round=on_round
        )
    ]


def attention(arguments: argparse.Namespace, on_round: Callable) -> list[dict]:
    return [
        row
        for tokens in arguments.tokens
        for row in benchmarks.attention(
            tokens,
            batch=arguments.batch,
            width=arguments.width,
            heads=arguments.heads,
            rounds=arguments.rounds,
            on_round=on_round,
        )
    ]


def decode(arguments: argparse.Namespace, on_round: Callable) -> list[dict]:
    return benchmarks.decode(
        arguments.path,
        prompt=arguments.prompt,
        length=arguments.length,
        batch=arguments.batch,
        rounds=arguments.rounds,
        on_round=on_round,
    )


def torch(arguments: argparse.Namespace, on_round: Callable) -> list[dict]:
    return [
        row
        for name in arguments.setting or ("small", "medium")
        for row in benchmarks.against_torch(
            benchmarks.SETTINGS[name],
            rounds=arguments.rounds,
            steps=arguments.steps,
            curve=arguments.curve,
            on_round=on_round,
        )
    ]


def shape_of(arguments: argparse.Namespace) -> benchmarks.Shape:
    return benchmarks.Shape(
        arguments.batch, arguments.context, arguments.width, arguments.heads
    )


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="example:\n  python scripts/benchmark.py march --depth 48 --json march.json\n"
        "  python scripts/benchmark.py gradient --help",
    )
    commands = parser.add_subparsers(required=True, metavar="WHAT")

    def command(name: str, call: Callable, about: str, example: str, *, rounds: int) -> Any:
        made = commands.add_parser(
            name,
            help=about,
            description=about,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            epilog=f"example:\n  python scripts/benchmark.py {name} {example}",
        )
        made.set_defaults(call=call)
        made.add_argument("--rounds", type=int, default=rounds)
        made.add_argument("--json", type=Path, help="also write the rows to this file")
        made.add_argument("--figure", type=Path, help="also draw them, as PNG")
        return made

    def sizes(made: Any, *, depth: list[int], batch: int, context: int) -> None:
        made.add_argument("--depth", type=int, nargs="+", default=depth, help="layers")
        made.add_argument("--batch", type=int, default=batch)
        made.add_argument("--context", type=int, default=context)
        made.add_argument("--width", type=int, default=128)
        made.add_argument("--heads", type=int, default=4)

    made = command(
        "march",
        march,
        "one gradient of the march against scans written out by hand",
        "--depth 48 --scheme heun --json march.json --figure march.png",
        rounds=20,
    )
    sizes(made, depth=[4, 48], batch=12, context=64)
    made.add_argument("--scheme", action="append", choices=tuple(benchmarks.SCHEMES))

    made = command(
        "gradient",
        gradient,
        "one gradient by each gradient mode",
        "--depth 96 --normalization pre-norm --figure gradient.png",
        rounds=10,
    )
    sizes(made, depth=[12, 48, 96], batch=4, context=128)
    made.add_argument("--normalization", action="append", choices=benchmarks.NORMALIZATIONS)

    made = command(
        "compile",
        compiling,
        "time to compile a gradient by each gradient mode",
        "--depth 12 96 --rounds 5",
        rounds=3,
    )
    sizes(made, depth=[12, 96], batch=4, context=128)

    made = command(
        "attention",
        attention,
        "the causal token integral and its gradient, in its forms",
        "--tokens 1024 --batch 8 --json attention.json",
        rounds=10,
    )
    made.add_argument("--tokens", type=int, nargs="+", default=[256, 1024])
    made.add_argument("--batch", type=int, default=8)
    made.add_argument("--width", type=int, default=256)
    made.add_argument("--heads", type=int, default=4)

    made = command(
        "decode",
        decode,
        "tokens per second of generation, with a cache, without, and by transformers",
        "glassllm --batch 8 --json decode.json",
        rounds=7,
    )
    made.add_argument("path", nargs="?", default="glassllm", help="a checkpoint")
    made.add_argument("--prompt", type=int, default=1, help="tokens of a prompt")
    made.add_argument("--length", type=int, default=128, help="tokens to write")
    made.add_argument("--batch", type=int, default=1, help="texts at once")

    made = command(
        "torch",
        torch,
        "training steps against the equal model in PyTorch, eager and compiled",
        "--setting small --json torch.json --figure torch.png",
        rounds=20,
    )
    made.add_argument("--setting", action="append", choices=tuple(benchmarks.SETTINGS))
    made.add_argument("--steps", type=int, default=10, help="in one turn")
    made.add_argument("--curve", type=int, default=50, help="steps whose losses are compared")
    return parser


def main() -> None:
    arguments = build_parser().parse_args()
    with Progress(transient=True) as progress:
        task = progress.add_task("measuring", total=None)
        rows = arguments.call(arguments, lambda done: progress.advance(task))
    benchmarks.report(rows, table=arguments.json, figure=arguments.figure)


if __name__ == "__main__":
    run_script(main)
