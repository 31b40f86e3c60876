"""Translates held-out texts with the model of a run, and measures BLEU."""

import argparse

from ..errors import InputError
from .options import add_model, chosen_model


EXAMPLES = """\
  ide-transformer translate runs/verses_en_es
  ide-transformer translate runs/verses_en_es --beams 4 --samples 200
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    add_model(parser)
    parser.add_argument("--part", choices=("validation", "test"), default="test")
    parser.add_argument(
        "--samples", type=int, help="how many texts, evenly spread (default: all)"
    )
    parser.add_argument(
        "--beams", type=int, default=1, help="beams of the search; 1 (default) is greedy"
    )
    parser.add_argument("--length-penalty", type=float, default=1.0, help="default: 1")
    parser.add_argument(
        "--show", type=int, default=3, help="translations to print (default: 3)"
    )


def run(options: argparse.Namespace) -> None:
    from ..reporting import show_text
    from ..training import bleu, translated

    if options.beams == 1 and options.length_penalty != 1:
        raise InputError("--length-penalty needs --beams of 2 or more.")
    translations = translated(
        chosen_model(options),
        samples=options.samples,
        part=options.part,
        beams=options.beams,
        length_penalty=options.length_penalty,
    )
    for source, reference, written in translations[: options.show]:
        show_text(f"{source}\n  reference: {reference}\n  written:   {written}\n")
    score, signature = bleu(translations)
    print(f"BLEU {score:.2f} on {len(translations)} texts ({signature})")
