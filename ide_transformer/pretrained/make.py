"""Builds parts of models from options, and options from models, for all families. Weights are
replaced by a checkpoint's."""

import contextlib
import functools as ft
import math
from collections.abc import Callable, Set
from operator import attrgetter
from typing import Any

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PRNGKeyArray, PyTree

from ..equation import (
    AbstractConstraint,
    AbstractOperator,
    Attention,
    FeedForward,
    Free,
    LayerNorm,
    Linear,
    PiecewiseConstant,
    RMSNorm,
    Rotary,
    gelu,
    gelu_tanh,
    parts,
    quick_gelu,
    relu,
    silu,
)
from ..errors import InputError
from ..models import LanguageModel, Model
from ..solvers import LieTrotter
from .options import Options


# Called with `key=…`.
MakeOperator = Callable[..., AbstractOperator]
# Of several names of a function, the last one is written.
ACTIVATIONS = {
    "gelu": gelu,
    "gelu_fast": gelu_tanh,
    "gelu_pytorch_tanh": gelu_tanh,
    "gelu_new": gelu_tanh,
    "quick_gelu": quick_gelu,
    "relu": relu,
    "swish": silu,
    "silu": silu,
}


def any_key() -> PRNGKeyArray:
    """A key for weights that will be replaced."""
    return jax.random.key(0)


def layer_norm(features: int, eps: float) -> LayerNorm:
    return LayerNorm(jnp.ones(features), jnp.zeros(features), eps=eps)


def rms_norm(features: int, eps: float) -> RMSNorm:
    return RMSNorm(jnp.ones(features), eps=eps)


def dense(features_in: int, features_out: int) -> Linear:
    return Linear(features_in, features_out, bias=True, std=0.02, key=any_key())


def block(*operators: MakeOperator) -> Callable[[PRNGKeyArray], PyTree]:
    """A function that builds a block of operators from a key."""
    return lambda key: tuple(make(key=key) for make in operators)


def pre_norm(
    options: Options,
    normalization: AbstractConstraint,
    *operators: MakeOperator,
    parallel: bool = False,
) -> dict[str, Any]:
    """The arguments of a pre-norm model of operators. The solver is Lie–Trotter, or unsplit
    Euler for parallel blocks."""
    layers = block(*(ft.partial(make, normalization=normalization) for make in operators))
    return dict(
        control=PiecewiseConstant.build(
            layers, options.size("num_hidden_layers"), key=any_key()
        ),
        constraint=Free(),
        solver=diffrax.Euler() if parallel else LieTrotter(),
        output_normalization=normalization,
    )


def attention(
    options: Options, *, head_features: int | None = None, **arguments: Any
) -> MakeOperator:
    """Attention from options with BERT's names."""
    width = options.size("hidden_size")
    heads = options.size("num_attention_heads")
    head = head_features or options.divided("hidden_size", "num_attention_heads")
    return ft.partial(Attention, width, heads, head_features=head, **arguments)


def feed_forward(
    options: Options,
    kind: type[AbstractOperator] = FeedForward,
    *,
    hidden: int | None = None,
    activation: str = "gelu",
    **arguments: Any,
) -> MakeOperator:
    """A feed-forward operator from options with BERT's names."""
    width = options.size("hidden_size")
    hidden = hidden or options.size("intermediate_size")
    function = options.choose("hidden_act", ACTIVATIONS, activation)
    return ft.partial(kind, width, hidden, activation=function, **arguments)


def language_model(
    options: Options,
    normalization: AbstractConstraint,
    *operators: MakeOperator,
    context: int,
    tied: bool = False,
    parallel: bool = False,
    **arguments: Any,
) -> Model:
    """A pre-norm language model from options with Llama's names."""
    return LanguageModel(
        options.size("vocab_size"),
        options.size("max_position_embeddings", context),
        options.size("hidden_size"),
        tied=options.flag("tie_word_embeddings", tied),
        key=any_key(),
        **pre_norm(options, normalization, *operators, parallel=parallel),
        **arguments,
    )


def has(names: Set[str], name: str) -> bool:
    """Whether a checkpoint has the tensor `name` or tensors below it."""
    return any(tensor == name or tensor.startswith(f"{name}.") for tensor in names)


def rotary(options: Options, head_features: int, *, fraction: float | None = None) -> Rotary:
    """Rotary positions from the options of older or newer checkpoints."""
    name = "rope_parameters"
    values = {}
    for generation in ("rope_parameters", "rope_scaling"):
        entries = options.get(generation, None) or {}
        if not isinstance(entries, dict):
            raise options.refused(generation, entries, "not an object of options")
        if entries:
            name = generation
            values = entries
    scaling = Options(values, options.file, f"{name}.")
    # Options outside this object are the defaults.
    base = scaling.number("rope_theta", options.number("rope_theta", 10000.0))
    features = head_features
    name = "partial_rotary_factor"
    if fraction is None:
        options.allow(name, None, 1.0, 1)
        scaling.allow(name, None, 1.0, 1)
        names = ("head_dim",)
    else:
        features = int(head_features * scaling.number(name, options.number(name, fraction)))
        names = (options.spelled(name), scaling.spelled(name))
    check_turning(options, features, head_features, *names)
    stretch = None
    older_name = "type" if "rope_type" not in values and "type" in values else "rope_type"
    match scaling.allow(older_name, "default", "linear", "llama3"):
        case "linear":
            stretch = (scaling.number("factor"),) * (features // 2)
        case "llama3":
            # Only long waves are stretched, as in Llama 3.1.
            factor = scaling.number("factor")
            low = scaling.number("low_freq_factor")
            high = scaling.number("high_freq_factor")
            if low >= high:
                reason = f"not below high_freq_factor = {high}"
                raise scaling.refused("low_freq_factor", low, reason)
            half = features // 2
            wavelengths = 2 * math.pi * base ** (np.arange(half) / half)
            waves = scaling.size("original_max_position_embeddings") / wavelengths
            smooth = np.clip((waves - low) / (high - low), 0, 1)
            stretch = tuple((1 / ((1 - smooth) / factor + smooth)).tolist())
    scaling.check_all_read("type")
    return Rotary(base, None if features == head_features else features, stretch)


def check_turning(options: Options, features: int, head_features: int, *names: str) -> None:
    """Raises `InputError` if the number of features with rotary positions is odd or more than a
    head has."""
    if features % 2 or not 0 < features <= head_features:
        sizes = map(options.spelled, ("hidden_size", "num_attention_heads"))
        raise InputError(
            f"{options.file}: {features} of the {head_features} features of a head have rotary "
            f"positions; set an even number by {', '.join((*names, *sizes))}."
        )


def options_of(model: Model) -> dict[str, Any]:
    """Options, with BERT's names, of the pre-norm model nearest to `model`."""
    inner = first_of(model, "inner.weight", None)
    names = {function: name for name, function in ACTIVATIONS.items()}
    return dict(
        hidden_size=model.features,
        num_hidden_layers=model.layers,
        num_attention_heads=first_of(model, "heads", 1),
        intermediate_size=4 * model.features if inner is None else inner.shape[-1],
        hidden_act=names.get(first_of(model, "activation", None), "gelu"),
        layer_norm_eps=getattr(model.read_out.normalization, "eps", 0) or 1e-5,
    )


def first_of(model: Model, path: str, default: Any) -> Any:
    """The attribute at `path` of the first operator that has it."""
    for operator in parts(model.control, AbstractOperator):
        with contextlib.suppress(AttributeError):
            return attrgetter(path)(operator.innermost)
    return default
