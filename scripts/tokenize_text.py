"""Turns text files of any size into a folder of tokens, for `data.name=token_files`."""

import argparse
from pathlib import Path

from commands import run_script
from ide_transformer.reporting import ByteProgress
from ide_transformer.tasks import tokenize_files


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="The same command goes on where a process was killed.\n\nexamples:\n"
        "  python scripts/tokenize_text.py texts/ --output tokens --processes 8\n"
        "  python scripts/tokenize_text.py *.txt --output tokens --tokenizer bpe "
        "--vocabulary 8192\n"
        "  python scripts/train.py configs/shakespeare.yaml data.name=token_files "
        "data.path=tokens data.tokenizer=characters",
    )
    parser.add_argument(
        "texts", nargs="+", type=Path, help="text files, or folders of .txt and .md files"
    )
    parser.add_argument("--output", type=Path, required=True, help="the folder of tokens")
    parser.add_argument(
        "--tokenizer",
        default="characters",
        help="characters (default), bpe, the tokenizer.json of a run or of a folder of tokens, "
        "or a checkpoint",
    )
    parser.add_argument(
        "--vocabulary", type=int, default=512, help="tokens of bpe (default: 512)"
    )
    parser.add_argument(
        "--between",
        metavar="LINE",
        help="the line that stands between documents; by default each file is a document",
    )
    parser.add_argument("--processes", type=int, default=1, help="default: 1")
    parser.add_argument(
        "--shard-bytes", type=int, default=2**26, help="bytes of text in a file (default: 2^26)"
    )
    parser.add_argument(
        "--verify", action="store_true", help="read all files again and compare checksums"
    )
    options = vars(parser.parse_args())
    verify = options.pop("verify")
    with ByteProgress("tokenising") as progress:
        folder = tokenize_files(**options, on_progress=progress.show)
    if verify:
        folder.verify()
    index = folder.index
    print(
        f"{folder.path}: {index.tokens:,} tokens of {index.vocabulary:,} kinds in "
        f"{index.documents:,} documents, {len(index.shards)} files"
    )


if __name__ == "__main__":
    run_script(main)
