"""Writes text with a trained language model."""

import argparse
from pathlib import Path

from ide_transformer import InputError, LanguageModel
from ide_transformer.training import load_run, main_of, sample_text


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="example:\n  python scripts/sample.py runs/shakespeare "
        "--prompt 'To be, ' --length 300",
    )
    parser.add_argument("run", type=Path, help="the folder of a run, as runs/shakespeare")
    parser.add_argument("--prompt", default="\n", help="text to go on from")
    parser.add_argument("--length", type=int, default=400, help="tokens to write")
    parser.add_argument("--temperature", type=float, default=0.8, help="0: most likely token")
    parser.add_argument("--top-k", type=int, help="draw from the k most likely tokens only")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    model, folder = load_run(arguments.run)
    if not isinstance(model, LanguageModel):
        raise InputError(
            f"{arguments.run} holds a {type(model).__name__}, which writes no text."
        )
    text = sample_text(
        folder,
        model,
        length=arguments.length,
        prompt=arguments.prompt,
        temperature=arguments.temperature,
        top_k=arguments.top_k,
        seed=arguments.seed,
    )
    print(text)


if __name__ == "__main__":
    main_of(main)
