import jax
import jax.numpy as jnp
import numpy as np

from ..models import LanguageModel, generate
from .tokenizers import AbstractTokenizer


def sample_text(
    model: LanguageModel,
    tokenizer: AbstractTokenizer,
    *,
    length: int,
    prompt: str = "\n",
    temperature: float = 0.8,
    top_k: int | None = None,
    top_p: float | None = None,
    seed: int = 0,
) -> str:
    """Text that the model writes after `prompt`, the prompt included.

    **Arguments:**

    - `tokenizer`: the one that belongs to the model.
    - `length`: tokens to write.
    - `temperature`, `top_k`, `top_p`: see `generate`.
    """
    tokens = generate(
        model,
        jnp.asarray(tokenizer.encode(prompt), int),
        length,
        key=jax.random.key(seed),
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
    )
    return tokenizer.decode(np.asarray(tokens))
