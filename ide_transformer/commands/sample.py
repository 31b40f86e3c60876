"""Writes text with a trained language model."""

import argparse
import sys
import time

from ..errors import InputError
from .options import add_mesh, add_model, load_model_of, read_mesh


EXAMPLES = """\
  ide-transformer sample runs/shakespeare --prompt 'To be, ' --length 300
  ide-transformer sample runs/shakespeare --prompt 'To be, ' --prompt 'Friends' --length 50
  ide-transformer sample glassllm --prompt 'Once upon a time' --top-p 0.9 solver.kind=strang
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add_model(parser)
    add("--prompt", action="append", help="text to continue; several are written at once")
    add("--length", type=int, default=400, help="tokens to write (default: 400)")
    about = "0: the most likely token (default: 0.8)"
    add("--temperature", type=float, default=0.8, help=about)
    add("--top-k", type=int, help="draw from the k most likely tokens only")
    add("--top-p", type=float, help="draw from the most likely tokens of this probability")
    add_mesh(parser)
    add("--seed", type=int, default=0)


def run(options: argparse.Namespace) -> None:
    import jax
    import numpy as np

    from .. import models, training
    from ..reporting import show_text

    if not 0 <= options.seed < 2**32:
        raise InputError(f"--seed {options.seed}: use a number from 0 to 2^32 - 1.")
    mesh = read_mesh(options)
    if mesh.tokens is not None:
        tokens = mesh.tokens
        raise InputError(f"--mesh {tokens=}: for a run pass model.context={tokens} instead.")
    loaded = load_model_of(options)
    loaded = loaded._replace(model=training.model_on(loaded.model, mesh))
    model = loaded.model
    inputs = model.inputs
    # A user's own inputs of texts return a text unchanged.
    text = models.Text(np.zeros(1, int))
    takes_text = hasattr(inputs, "vocabulary") and inputs.of_text(text) is text
    if isinstance(inputs, models.TextInputs) and isinstance(model.read_out, models.States):
        call = f"x = ide.load_model({str(options.model)!r})"
        raise InputError(
            f"{options.model} encodes texts and writes none. Its states of the tokens, in "
            f"Python: {call}; x.model(x.tokenizer.encode_batch(['a text'], 128))"
        )
    if isinstance(inputs, models.TextInputs) or not takes_text:
        model = loaded.require(models.LanguageModel)
    began = time.perf_counter()
    texts = models.generate(
        model,
        options.prompt or ["\n"],
        options.length,
        key=jax.random.key(options.seed),
        temperature=options.temperature,
        top_k=options.top_k,
        top_p=options.top_p,
        tokenizer=loaded.tokenizer,
    )
    seconds = time.perf_counter() - began
    for text in texts:
        show_text(text)
    reason = models.why_not_cached(model)
    cause = "" if reason is None else f"\nwithout a cache: {reason}"
    num_tokens = options.length * len(texts)
    print(f"{num_tokens} tokens in {seconds:.1f} s with compiling{cause}", file=sys.stderr)
