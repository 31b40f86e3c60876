"""Measures what the march over depth costs, against a scan written out by hand.

march    one gradient of the march and of the hand-written scan of the same block
compile  time to compile a gradient, for several depths
"""

import argparse
import json
from pathlib import Path
from typing import Any

import diffrax
import jax
import jax.numpy as jnp
from rich.console import Console
from rich.progress import track
from rich.table import Table

import ide_transformer as ide
from ide_transformer.analysis import measure
from ide_transformer.training import main_of


def build_control(depth: int, width: int, heads: int) -> ide.PiecewiseConstant:
    """A pre-norm Transformer without biases, as of the reference configuration."""

    def block(key):
        first, second = jax.random.split(key)
        norm = ide.LayerNorm(jnp.ones(width))
        options: Any = dict(normalization=norm, bias=False)
        attention = ide.Attention(width, heads, key=first, causal=True, **options)
        return attention, ide.FeedForward(width, key=second, **options)

    return ide.PiecewiseConstant.build(block, depth, key=jax.random.key(0))


def marched(gradient: ide.AbstractGradient):
    """The loss of `solve`."""

    def loss(control, u0):
        domain = ide.TokenDomain.uniform(u0.shape[-2])
        equation = ide.Equation(control, ide.Free(), domain)
        solver = ide.LieTrotter(diffrax.Euler())
        u1 = ide.solve(equation, u0, solver=solver, gradient=gradient, throw=False).u1
        return jnp.mean(u1**2)

    return loss


def handwritten(heads: int):
    """The same mathematics with nothing of the package: a `lax.scan` over stacked weights."""

    def normalised(u, gain):
        centred = u - jnp.mean(u, axis=-1, keepdims=True)
        variance = jnp.mean(centred * centred, axis=-1, keepdims=True)
        return gain * centred * jax.lax.rsqrt(variance + 1e-5)

    def block(u, weights):
        batch, tokens, width = u.shape
        v = normalised(u, weights["attention_gain"])
        q, k, value = (
            (v @ weights[name]).reshape(batch, tokens, heads, width // heads)
            for name in ("query", "key", "value")
        )
        scores = jnp.einsum("bxhd,bzhd->bhxz", q, k) / (width // heads) ** 0.5
        scores = jnp.where(jnp.tril(jnp.ones((tokens, tokens), bool)), scores, -jnp.inf)
        mixed = jnp.einsum("bhxz,bzhd->bxhd", jax.nn.softmax(scores, axis=-1), value)
        u = u + mixed.reshape(u.shape) @ weights["output"]
        v = normalised(u, weights["feed_forward_gain"])
        hidden = jax.nn.gelu(v @ weights["inner"], approximate=False)
        return u + hidden @ weights["outer"], None

    def loss(weights, u0):
        return jnp.mean(jax.lax.scan(block, u0, weights)[0] ** 2)

    return loss


def plain_weights(control: ide.PiecewiseConstant) -> dict[str, jax.Array]:
    attention, feed_forward = control.blocks
    return {
        "query": attention.query.weight,
        "key": attention.key.weight,
        "value": attention.value.weight,
        "output": attention.output.weight,
        "attention_gain": attention.normalization.gain,
        "inner": feed_forward.inner.weight,
        "outer": feed_forward.outer.weight,
        "feed_forward_gain": feed_forward.normalization.gain,
    }


def with_gradient(loss):
    return jax.value_and_grad(loss, argnums=(0, 1))


def march(arguments: argparse.Namespace) -> list[dict]:
    control = build_control(arguments.depth, arguments.width, arguments.heads)
    shape = (arguments.batch, arguments.context, arguments.width)
    u0 = jax.random.normal(jax.random.key(1), shape)
    programs = {
        "hand-written scan": (handwritten(arguments.heads), (plain_weights(control), u0)),
        "march, Direct": (marched(ide.Direct()), (control, u0)),
        "march, Checkpoint": (marched(ide.Checkpoint()), (control, u0)),
    }
    losses = [float(jax.jit(loss)(*inputs)) for loss, inputs in programs.values()]
    assert max(losses) - min(losses) < 1e-5 * max(losses), f"not the same function: {losses}"
    rounds = iter(track(range(arguments.rounds + 1), "measuring", transient=True))
    results = measure(
        {name: (with_gradient(loss), inputs) for name, (loss, inputs) in programs.items()},
        rounds=arguments.rounds,
        on_round=lambda done: next(rounds, None),
    )
    return [
        {"name": name, "depth": arguments.depth, **result._asdict()}
        for name, result in results.items()
    ]


def compile_times(arguments: argparse.Namespace) -> list[dict]:
    rows = []
    for depth in track(arguments.depths, "compiling", transient=True):
        control = build_control(depth, arguments.width, arguments.heads)
        u0 = jnp.zeros((arguments.batch, arguments.context, arguments.width))
        seconds = []
        for _ in range(arguments.rounds):
            jax.clear_caches()
            program = with_gradient(marched(ide.Checkpoint()))
            result = measure({"march": (program, (control, u0))}, rounds=2)["march"]
            seconds.append(result.compile_seconds)
        rows.append({"name": "march", "depth": depth, "compile_seconds": sorted(seconds)})
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="example:\n  python scripts/benchmark.py march --depth 48 --json march.json",
    )
    parser.add_argument("what", choices=("march", "compile"))
    parser.add_argument("--depth", type=int, default=4)
    parser.add_argument("--depths", type=int, nargs="+", default=[12, 96], help="of compile")
    parser.add_argument("--batch", type=int, default=12)
    parser.add_argument("--context", type=int, default=64)
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--heads", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--json", type=Path, help="also write the rows to this file")
    arguments = parser.parse_args()
    rows = {"march": march, "compile": compile_times}[arguments.what](arguments)
    table = Table(*(name.replace("_", " ") for name in rows[0]))
    for row in rows:
        table.add_row(*(_text(value) for value in row.values()))
    console = Console()
    # Where the output is no terminal its width is unknown; a table should not be cut.
    console.width = max(console.width, 120)
    console.print(table)
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")


def _text(value: object) -> str:
    if isinstance(value, list):
        return " ".join(_text(item) for item in value)
    return f"{value:.3g}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    main_of(main)
