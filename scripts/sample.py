"""Writes text with a trained language model."""

import signal


# An interrupt ends the process at once, also while the package is imported.
signal.signal(signal.SIGINT, signal.SIG_DFL)

import sys
import time

import jax

from ide_transformer import (
    EncodedInputs,
    InputError,
    LanguageModel,
    TextInputs,
    generate,
    why_not_cached,
)
from ide_transformer.training import mesh_of, model_on, model_parser, run_script
from ide_transformer.training.script import chosen_model, mesh_sections


def main() -> None:
    parser = model_parser(
        __doc__,
        epilog="examples:\n  python scripts/sample.py runs/shakespeare "
        "--prompt 'To be, ' --length 300\n"
        "  python scripts/sample.py glassllm --prompt 'Once upon a time' --top-p 0.9 "
        "solver.kind=strang",
    )
    parser.add_argument("--prompt", default="\n", help="text to go on from")
    parser.add_argument("--length", type=int, default=400, help="tokens to write")
    parser.add_argument("--temperature", type=float, default=0.8, help="0: most likely token")
    parser.add_argument("--top-k", type=int, help="draw from the k most likely tokens only")
    parser.add_argument(
        "--top-p", type=float, help="draw from the most likely tokens of this probability"
    )
    parser.add_argument("--mesh", help="solve on another mesh, for example intervals=8")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_intermixed_args()
    if not 0 <= arguments.seed < 2**32:
        raise InputError(f"--seed {arguments.seed}: give a number from 0 to 2^32 - 1.")
    loaded = chosen_model(arguments)
    if arguments.mesh is not None:
        section, *others = mesh_sections(arguments.mesh)
        if others:
            raise InputError("--mesh: a text is written on one mesh; give one.")
        mesh = mesh_of(section, loaded.model, "--mesh")
        loaded = loaded._replace(model=model_on(loaded.model, mesh))
    model = loaded.model
    inputs = model.inputs
    # Inputs of a user's own that have a vocabulary are those of texts.
    own = not isinstance(inputs, TextInputs | EncodedInputs) and hasattr(inputs, "vocabulary")
    if not own:
        model = loaded.expected(LanguageModel, ", which writes no text")
    began = time.perf_counter()
    text = generate(
        model,
        arguments.prompt,
        arguments.length,
        key=jax.random.key(arguments.seed),
        temperature=arguments.temperature,
        top_k=arguments.top_k,
        top_p=arguments.top_p,
        tokenizer=loaded.tokenizer,
    )
    seconds = time.perf_counter() - began
    print(text)
    reason = why_not_cached(model)
    print(
        f"{arguments.length} tokens in {seconds:.1f} s, compiling included: "
        f"{arguments.length / seconds:.0f} tokens per second"
        + ("" if reason is None else f"\nwithout a cache: {reason}"),
        file=sys.stderr,
    )


if __name__ == "__main__":
    run_script(main)
