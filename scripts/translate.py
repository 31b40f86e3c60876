"""Translates held-out texts by the model of a run, and measures BLEU."""

import signal


# An interrupt ends the process at once, also while the package is imported.
signal.signal(signal.SIGINT, signal.SIG_DFL)

from ide_transformer import InputError
from ide_transformer.training import bleu, model_parser, run_script, translated
from ide_transformer.training.script import chosen_model


def main() -> None:
    parser = model_parser(
        __doc__,
        epilog="examples:\n  python scripts/translate.py runs/verses_en_es\n"
        "  python scripts/translate.py runs/verses_en_es --beams 4 --samples 200",
    )
    parser.add_argument("--part", choices=("validation", "test"), default="test")
    parser.add_argument("--samples", type=int, help="about so many texts; default: all")
    parser.add_argument(
        "--beams", type=int, default=1, help="beams of the search; 1 (default) is greedy"
    )
    parser.add_argument("--length-penalty", type=float, default=1.0, help="default: 1")
    parser.add_argument(
        "--show", type=int, default=3, help="translations to print (default: 3)"
    )
    arguments = parser.parse_intermixed_args()
    if arguments.beams == 1 and arguments.length_penalty != 1:
        raise InputError("--length-penalty goes with --beams of 2 or more.")
    loaded = chosen_model(arguments)
    translations = translated(
        loaded,
        samples=arguments.samples,
        part=arguments.part,
        beams=arguments.beams,
        length_penalty=arguments.length_penalty,
    )
    for source, reference, written in translations[: arguments.show]:
        print(f"{source}\n  reference: {reference}\n  written:   {written}\n")
    score, signature = bleu(translations)
    print(f"BLEU {score:.2f} on {len(translations)} texts ({signature})")


if __name__ == "__main__":
    run_script(main)
