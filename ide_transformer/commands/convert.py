"""Turns a checkpoint of a language or image model into a run, and a run into a checkpoint.

The new checkpoint has the layout from which the run began, else of GPT-2, Llama or ViT.
"""

import argparse
from pathlib import Path

from ..errors import InputError
from .options import add_weights


EXAMPLES = """\
  ide-transformer convert runs/shakespeare shakespeare-gpt2 --checkpoint best
  ide-transformer convert runs/tuned tuned-adapter --adapter
  ide-transformer convert glassllm runs/glass
  ide-transformer convert runs/glass glass.npz
  ide-transformer convert checkpoints/cvt runs/cvt data.name=mnist data.path=mnist
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("source", help="a checkpoint (folder, file, package) or a run")
    add("target", type=Path, help="a run folder RUNS/NAME, or a new checkpoint")
    add("overrides", nargs="*", help="keys of the run, for images data.name=… and data.path=…")
    add("--adapter", action="store_true", help="write the changes of model.lora only, for PEFT")
    add_weights(parser)


def run(options: argparse.Namespace) -> None:
    from ..training import RunFolder, export_run, import_pretrained

    source = options.source
    target = options.target
    if not RunFolder(source).config.is_file():
        if options.adapter:
            raise InputError(f"--adapter: {source} is not a run; pass a run with model.lora.")
        folder = import_pretrained(source, target.name, target.parent, options.overrides)
        print(f"{folder.path}: a run with the weights of {source}, at step 0")
        return
    if options.overrides:
        raise InputError(f"A run is written as it is; drop {', '.join(options.overrides)}.")
    export_run(
        source,
        target,
        checkpoint=options.checkpoint,
        weights=options.weights,
        trust=options.trust,
        adapter=options.adapter,
    )
    print(f"{target}: {'an adapter' if options.adapter else 'a checkpoint'} of {source}")
