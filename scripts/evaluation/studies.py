"""The studies of evaluate.py. Each prints its results, writes them where they are asked for,
and then draws."""

import argparse
from collections.abc import Callable
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ide_transformer import InputError, Mesh
from ide_transformer.reporting import show_table, write_json
from ide_transformer.tasks import read_text
from ide_transformer.training import (
    LoadedModel,
    cheapest_exits,
    draw_predictions,
    estimated_exit,
    evaluate_exits,
    evaluate_loss,
    evaluate_on_meshes,
    evaluation_task,
    mesh_of,
    rollout_errors,
    similarities,
)
from ide_transformer.training.script import mesh_sections

from .figure import draw, draw_rollout


Arguments = argparse.Namespace
Rows = list[dict[str, Any]]
# Takes the loaded model and the arguments.
Study = Callable[[LoadedModel, Arguments], None]


def exits(loaded: LoadedModel, arguments: Arguments) -> None:
    """Tokens stop before the end: a row for each tolerance, and the cheapest ones."""
    loss = evaluation_task(loaded, arguments.text).loss
    options: dict[str, Any] = {"stops": arguments.exit_for}
    if arguments.exit_order is not None:
        options["order"] = arguments.exit_order
    rows = evaluate_exits(
        loaded,
        estimated_exit(loss, **options),
        arguments.exit,
        _meshes(loaded, arguments) or [Mesh()],
        *_data(arguments),
    )
    show_table(rows)
    print("the fewest evaluations at the loss of the full solve and a margin:")
    show_table(cheapest_exits(rows))
    _write(arguments, rows)
    curves: dict[str, Rows] = {}
    for row in rows:
        curves.setdefault(f"{row['steps']} steps", []).append(row)
    if arguments.figure is not None:
        draw(arguments, curves, "evaluations", loss.label)


def meshes(loaded: LoadedModel, arguments: Arguments) -> None:
    """A row for each mesh."""
    given = _meshes(loaded, arguments)
    text, samples, part = _data(arguments)
    rows = evaluate_on_meshes(loaded, given, text, samples, part, layers=arguments.layers)
    show_table(rows)
    _write(arguments, rows)
    if arguments.figure is not None:
        label = evaluation_task(loaded, arguments.text).loss.label
        counts = {name: len({row.get(name) for row in rows}) for name in ("tokens", "width")}
        across = next((name for name, n in counts.items() if n == len(rows) > 1), "evaluations")
        draw(arguments, {str(loaded.path): rows}, across, label)


def rollout(loaded: LoadedModel, arguments: Arguments) -> None:
    """A row for each time, of a flow map that is applied to its own outputs."""
    rows = rollout_errors(loaded, arguments.rollout, path=arguments.pictures)
    show_table(rows)
    _write(arguments, rows)
    if arguments.figure is not None:
        draw_rollout(arguments.figure, rows)


def predictions(loaded: LoadedModel, arguments: Arguments) -> None:
    """The loss, and pictures of what is predicted."""
    (meshes if arguments.mesh else loss)(loaded, arguments)
    (mesh,) = _meshes(loaded, arguments) or [Mesh()]
    draw_predictions(loaded, arguments.pictures, mesh=mesh, part=arguments.part)


def sentences(loaded: LoadedModel, arguments: Arguments) -> None:
    """The similarities of the sentences of a file."""
    lines = [line.strip() for line in read_text(arguments.sentences).split("\n")]
    lines = [line for line in lines if line]
    matrix = similarities(loaded, lines).tolist()
    table = Table("", "sentence", *(str(n) for n in range(1, len(lines) + 1)))
    for number, (sentence, row) in enumerate(zip(lines, matrix, strict=True), 1):
        table.add_row(str(number), escape(sentence), *(f"{x:.3f}" for x in row))
    Console().print(table)
    _write(arguments, {"sentences": lines, "similarities": matrix})


def loss(loaded: LoadedModel, arguments: Arguments) -> None:
    """The loss, and what else the task measures."""
    results = evaluate_loss(loaded, *_data(arguments))
    for name, value in results.items():
        print(f"{name}: {value:.4f}")
    _write(arguments, results)


# By the argument that asks for it. Of two that go together the first is the study.
_STUDIES: dict[str, Study] = {
    "exit": exits,
    "rollout": rollout,
    "pictures": predictions,
    "mesh": meshes,
    "sentences": sentences,
}
_TOGETHER = {("exit", "mesh"), ("rollout", "pictures"), ("pictures", "mesh")}
# What says something only beside one of others.
_BESIDE = {
    "figure": ("exit", "mesh", "rollout"),
    "measure": ("figure",),
    "layers": ("mesh",),
    "exit_for": ("exit",),
    "exit_order": ("exit",),
}
# What says nothing beside another.
_DATA = "text", "samples"
_NOT_BESIDE = {"exit": ("layers",), "rollout": _DATA, "sentences": (*_DATA, "part")}


def chosen(arguments: Arguments, parser: argparse.ArgumentParser) -> Study:
    """The study that the arguments ask for.

    **Raises:** `InputError` for arguments of which one would say nothing.
    """

    def given(name: str) -> bool:
        return getattr(arguments, name) != parser.get_default(name)

    for name, others in _BESIDE.items():
        if given(name) and not any(map(given, others)):
            raise InputError(f"{_flag(name)} goes with {' or '.join(map(_flag, others))}.")
    for name, others in _NOT_BESIDE.items():
        if given(name) and any(map(given, others)):
            said = " and ".join(_flag(other) for other in others if given(other))
            raise InputError(f"{said} says nothing beside {_flag(name)}; drop one.")
    of_data = [x for x in arguments.overrides if x.startswith("data.")]
    if of_data and arguments.text is not None:
        raise InputError(f"{' and '.join(of_data)} says nothing beside --text; drop one.")
    arguments.sections = [x for text in arguments.mesh or () for x in mesh_sections(text)]
    if arguments.pictures and len(arguments.sections) > 1:
        raise InputError("--pictures are of one solve; give one mesh.")
    asked = tuple(name for name in _STUDIES if getattr(arguments, name) is not None)
    if len(asked) > 1 and asked not in _TOGETHER:
        raise InputError(f"{' and '.join(map(_flag, asked))} do not go together; drop one.")
    return _STUDIES[asked[0]] if asked else loss


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _data(arguments: Arguments) -> tuple[str | None, int | None, Any]:
    return arguments.text, arguments.samples, arguments.part


def _meshes(loaded: LoadedModel, arguments: Arguments) -> list[Mesh]:
    return [mesh_of(section, loaded.model, "--mesh") for section in arguments.sections]


def _write(arguments: Arguments, results: Any) -> None:
    if arguments.json is not None:
        write_json(arguments.json, results)
