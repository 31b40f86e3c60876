"""Writes text with a trained language model."""

import argparse
import sys
import time

from ..errors import InputError
from .options import add_model, chosen_model, meshes


EXAMPLES = """\
  ide-transformer sample runs/shakespeare --prompt 'To be, ' --length 300
  ide-transformer sample runs/shakespeare --prompt 'To be, ' --prompt 'Friends' --length 50
  ide-transformer sample glassllm --prompt 'Once upon a time' --top-p 0.9 solver.kind=strang
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add_model(parser)
    add("--prompt", action="append", help="text to go on from; several are written at once")
    add("--length", type=int, default=400, help="tokens to write")
    add("--temperature", type=float, default=0.8, help="0: most likely token")
    add("--top-k", type=int, help="draw from the k most likely tokens only")
    add("--top-p", type=float, help="draw from the most likely tokens of this probability")
    add("--mesh", help="solve on another mesh, for example layers=8")
    add("--seed", type=int, default=0)


def run(options: argparse.Namespace) -> None:
    import jax

    from .. import models, training
    from ..reporting import show_text

    if not 0 <= options.seed < 2**32:
        raise InputError(f"--seed {options.seed}: give a number from 0 to 2^32 - 1.")
    loaded = chosen_model(options)
    if options.mesh is not None:
        mesh, *others = meshes(options.mesh)
        if others:
            raise InputError("--mesh: a text is written on one mesh; give one.")
        if (tokens := mesh.tokens) is not None:
            raise InputError(
                f"--mesh tokens={tokens}: the tokens that are seen in writing are the context "
                f"of the model; leave it out, or of a run write model.context={tokens} instead."
            )
        loaded = loaded._replace(model=training.model_on(loaded.model, mesh))
    model = loaded.model
    inputs = model.inputs
    # Inputs of a user's own that have a vocabulary are those of texts.
    own = not isinstance(inputs, models.TextInputs | models.EncodedInputs) and hasattr(
        inputs, "vocabulary"
    )
    if not own:
        model = loaded.expected(models.LanguageModel, ", which writes no text")
    prompts = options.prompt or ["\n"]
    began = time.perf_counter()
    compiling: list[tuple[float, float]] = []

    def listen(event: str, duration_secs: float, **kwargs: str | int) -> None:
        if event.startswith("/jax/core/compile/"):
            compiling.append(((now := time.perf_counter()) - duration_secs, now))

    jax.monitoring.register_event_duration_secs_listener(listen)
    texts = models.generate(
        model,
        prompts,
        options.length,
        key=jax.random.key(options.seed),
        temperature=options.temperature,
        top_k=options.top_k,
        top_p=options.top_p,
        tokenizer=loaded.tokenizer,
    )
    seconds = time.perf_counter() - began
    compiled = 0.0
    last = began
    for start, end in sorted(compiling):  # one may be inside of another
        compiled += max(end - max(start, last), 0.0)
        last = max(end, last)
    seconds -= compiled
    for text in texts:
        show_text(text)
    reason = models.why_not_cached(model)
    number = options.length * len(texts)
    print(
        f"{number} tokens in {seconds:.1f} s, {number / seconds:.3g} tokens per second, after "
        f"{compiled:.1f} s of compiling"
        + ("" if reason is None else f"\nwithout a cache: {reason}"),
        file=sys.stderr,
    )
