"""The studies of evaluate.py. Each takes the loaded model and the arguments, prints its results
and returns them."""

import argparse
from collections.abc import Callable
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ide_transformer.reporting import show_table
from ide_transformer.tasks import read_text
from ide_transformer.training import (
    LoadedModel,
    cheapest_exits,
    draw_predictions,
    evaluate_at_contexts,
    evaluate_at_depths,
    evaluate_at_horizons,
    evaluate_at_widths,
    evaluate_exits,
    evaluate_loss,
    evaluation_task,
    named_exits,
    rollout_errors,
    similarities,
)

from .figure import draw, draw_rollout


Arguments = argparse.Namespace
Rows = list[dict[str, Any]]


def exits(loaded: LoadedModel, arguments: Arguments) -> Rows:
    """Tokens stop before the end: a row for each exit and tolerance, and the cheapest ones."""
    loss = evaluation_task(loaded, arguments.text, arguments.context).loss
    options: dict[str, Any] = {"stops": arguments.exit_for}
    if arguments.exit_order is not None:
        options["order"] = arguments.exit_order
    limits = {} if arguments.tolerances is None else {"tolerances": arguments.tolerances}
    rows = evaluate_exits(
        loaded,
        named_exits(arguments.exit, loss, **options),
        **limits,
        steps=arguments.steps,
        text=arguments.text,
        samples=arguments.samples,
        context=arguments.context,
        part=arguments.part,
    )
    show_table(rows)
    print("the fewest evaluations at the loss of the full solve and a margin:")
    show_table(cheapest_exits(rows))
    curves: dict[str, Rows] = {}
    for row in rows:
        curves.setdefault(f"{row['exit']}, {row['steps']} steps", []).append(row)
    if arguments.figure is not None:
        draw(arguments, curves, "evaluations", loss.label)
    return rows


def depths(loaded: LoadedModel, arguments: Arguments) -> Rows:
    """A row for each number of steps."""
    steps, mesh = arguments.steps, arguments.mesh
    rows = evaluate_at_depths(loaded, steps, *_data(arguments), mesh=mesh)
    return _shown(loaded, arguments, rows, "evaluations")


def horizons(loaded: LoadedModel, arguments: Arguments) -> Rows:
    """A row for each horizon."""
    rows = evaluate_at_horizons(loaded, arguments.horizons, *_data(arguments))
    return _shown(loaded, arguments, rows, "evaluations")


def widths(loaded: LoadedModel, arguments: Arguments) -> Rows:
    """A row for each number of features."""
    rows = evaluate_at_widths(loaded, arguments.widths, *_data(arguments))
    return _shown(loaded, arguments, rows, "width")


def contexts(loaded: LoadedModel, arguments: Arguments) -> Rows:
    """A row for each number of tokens."""
    text, samples, _, part = _data(arguments)
    rows = evaluate_at_contexts(loaded, arguments.contexts, text, samples, part)
    return _shown(loaded, arguments, rows, "context")


def rollout(loaded: LoadedModel, arguments: Arguments) -> Rows:
    """A row for each time, of a flow map that is applied to its own outputs."""
    rows = rollout_errors(loaded, arguments.rollout, path=arguments.pictures)
    show_table(rows)
    if arguments.figure is not None:
        draw_rollout(arguments.figure, rows)
    return rows


def predictions(loaded: LoadedModel, arguments: Arguments) -> dict[str, Any]:
    """The loss, and pictures of what is predicted."""
    draw_predictions(loaded, arguments.pictures, context=arguments.context, part=arguments.part)
    results = evaluate_loss(loaded, *_data(arguments))
    print(f"loss: {results['loss']:.4f}")
    return results


def sentences(loaded: LoadedModel, arguments: Arguments) -> dict[str, Any]:
    """The similarities of the sentences of a file."""
    lines = [line.strip() for line in read_text(arguments.sentences).split("\n")]
    lines = [line for line in lines if line]
    matrix = similarities(loaded, lines).tolist()
    table = Table("", "sentence", *(str(n) for n in range(1, len(lines) + 1)))
    for number, (sentence, row) in enumerate(zip(lines, matrix, strict=True), 1):
        table.add_row(str(number), escape(sentence), *(f"{x:.3f}" for x in row))
    Console().print(table)
    return {"sentences": lines, "similarities": matrix}


def loss(loaded: LoadedModel, arguments: Arguments) -> dict[str, Any]:
    """The loss, and what else the task measures."""
    results = evaluate_loss(loaded, *_data(arguments))
    for name, value in results.items():
        print(f"{name}: {value:.4f}")
    return results


# By the argument that asks for it, the first that is given.
STUDIES: dict[str, Callable[[LoadedModel, Arguments], Any]] = {
    "exit": exits,
    "steps": depths,
    "horizons": horizons,
    "widths": widths,
    "contexts": contexts,
    "rollout": rollout,
    "pictures": predictions,
    "sentences": sentences,
}


def _data(arguments: Arguments) -> tuple[str | None, int | None, int | None, Any]:
    return arguments.text, arguments.samples, arguments.context, arguments.part


def _shown(loaded: LoadedModel, arguments: Arguments, rows: Rows, across: str) -> Rows:
    """The rows, shown as a table and drawn."""
    show_table(rows)
    if arguments.figure is not None:
        label = evaluation_task(loaded, arguments.text, arguments.context).loss.label
        draw(arguments, {str(loaded.path): rows}, across, label)
    return rows
