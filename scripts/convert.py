"""Turns the checkpoint of a language model, or of a model of images, into a run, and a run back
into a checkpoint."""

import signal


# An interrupt ends the process at once, also while the package is imported.
signal.signal(signal.SIGINT, signal.SIG_DFL)

import argparse
from pathlib import Path

from ide_transformer import InputError
from ide_transformer.training import export_run, import_pretrained, run_script
from ide_transformer.training.script import add_trust


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="examples:\n  python scripts/convert.py glassllm runs/glass\n"
        "  python scripts/convert.py runs/glass glass.npz\n"
        "  python scripts/convert.py checkpoints/cvt runs/cvt data.name=mnist data.path=mnist",
    )
    parser.add_argument("source", help="a checkpoint (folder, file, package) or a run")
    parser.add_argument("target", type=Path, help="a run folder RUNS/NAME, or a new checkpoint")
    parser.add_argument(
        "overrides", nargs="*", help="keys of the run, for images data.name=… and data.path=…"
    )
    add_trust(parser)
    arguments = parser.parse_args()
    if (Path(arguments.source) / "config.yaml").is_file():
        if arguments.overrides:
            raise InputError(
                "A run is written as it is; give no keys after the new checkpoint."
            )
        export_run(Path(arguments.source), arguments.target, trust=arguments.trust)
        print(f"{arguments.target}: a checkpoint of {arguments.source}")
    else:
        target = arguments.target
        folder = import_pretrained(
            arguments.source, target.name, target.parent, arguments.overrides
        )
        print(f"{folder.path}: a run with the weights of {arguments.source}, at step 0")


if __name__ == "__main__":
    run_script(main)
