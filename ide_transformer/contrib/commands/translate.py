"""Translates held-out texts with the model of a run, and measures BLEU."""

import argparse

from ide_transformer.commands import add_model, chosen_model


EXAMPLES = """\
  ide-transformer translate runs/verses_en_es
  ide-transformer translate runs/verses_en_es --samples 200
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add_model(parser)
    add("--part", choices=("validation", "test"), default="test")
    add("--samples", type=int, help="how many texts, evenly spread (default: all)")
    add("--show", type=int, default=3, help="translations to print (default: 3)")


def run(options: argparse.Namespace) -> None:
    from ide_transformer.contrib.translation import bleu, translated
    from ide_transformer.reporting import show_text

    translations = translated(chosen_model(options), samples=options.samples, part=options.part)
    for source, reference, written in translations[: options.show]:
        show_text(f"{source}\n  reference: {reference}\n  written:   {written}\n")
    score, signature = bleu(translations)
    print(f"BLEU {score:.2f} on {len(translations)} texts ({signature})")
