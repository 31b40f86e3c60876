"""Every model that a user can build, one of a user, and broken ones, under their suite."""

import inspect
from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ide_transformer as ide
from ide_transformer import contrib, models
from ide_transformer.testing import check_model
from tests.conformance.models import ModelConformance
from tests.helpers import built, fast_first
from tests.models import examples as small


TEXT = ide.Text(small.TOKENS, small.MASK)


class OwnInputs(ide.AbstractInputs):
    """Texts, as a user embeds them."""

    table: jax.Array
    change: Callable = eqx.field(static=True, default=jnp.asarray)

    @property
    def features(self):
        return self.table.shape[1]

    @property
    def domain(self):
        return ide.TokenDomain.uniform(small.CONTEXT)

    def embed(self, inputs, *, key=None):
        tokens, mask, _ = inputs if isinstance(inputs, ide.Text) else ide.Text(inputs)
        u = self.change(self.table[jnp.asarray(tokens)])
        domain = ide.TokenDomain.uniform(u.shape[-2])
        return ide.models.Embedded(u, domain if mask is None else domain.padded(mask))


class By(ide.AbstractReadOut):
    """A read-out by a function."""

    read: Callable = eqx.field(static=True)

    def __call__(self, u, inputs):
        return self.read(u)


def model_of_a_user(*change, read_out=ide.models.States()):
    """A model of a user, of which one part may be broken."""
    theta = ide.Tied((ide.Damping(jnp.ones(small.WIDTH)),), 2)
    inputs = OwnInputs(jnp.ones((11, small.WIDTH)), *change)
    return lambda: ide.Model(inputs, theta, ide.Free(), read_out)


def language_model():
    turned = small.causal(positions=ide.Rotary(), window=5, key_value_heads=1)
    options = dict(control=ide.PiecewiseLinear, dropout=0.3)
    options["text_options"] = dict(tied=False, readout_bias=True, learned_positions=False)
    return small.language_model((turned,), **options)


def functional_model():
    options = dict(control=ide.Chebyshev, solver=ide.contrib.Nesterov(), velocity=True)
    return ide.functional(small.language_model((small.causal(),), **options))


MODELS = {"LanguageModel": (language_model, TEXT), "Model": (model_of_a_user(), TEXT)}
# A second look.
PADDED = ide.TokenDomain.periodic(16).padded(np.arange(16) < 12)
MORE = {
    "OperatorModel": (small.operator_model, ide.Field(small.normal(2, 16), PADDED)),
    "ImageClassifier": (small.image_classifier, small.normal(2, 4, 6, 1)),
    "SequenceClassifier": (lambda: small.sequence_classifier(class_token=True), TEXT),
    "StagedModel": (lambda: ide.StagedModel(small.stages()), small.STAGED),
    "LanguageModel, functional": (functional_model, small.TOKENS),
}
PARTS_OF_OTHERS = {"ImageStage", "FunctionClassifier", "FunctionRegressor", "SequenceRegressor"}


def test_no_kind_of_model_is_left_out():
    names = {name: x for name, x in vars(models).items() if name[0].isupper()}
    builders = {name for name, x in names.items() if inspect.isfunction(x) or x is ide.Model}
    assert builders <= {name.partition(",")[0] for name in MODELS | MORE} | PARTS_OF_OTHERS


def test_an_argument_means_the_same_in_all_models():
    names = ["LanguageModel", "SequenceClassifier", "ImageClassifier", "OperatorModel"]
    builders = [getattr(models, name) for name in [*names, *sorted(PARTS_OF_OTHERS)]]
    signatures = [inspect.signature(x) for x in [*builders, contrib.MomentumLanguageModel]]
    kinds = {}
    for name, argument in [x for y in signatures for x in y.parameters.items()]:
        kinds.setdefault(name, set()).add(str(argument))
    # A stage may have no classes, and only operators have periodic points by default.
    assert {name for name, x in kinds.items() if len(x) > 1} == {"classes", "grid"}
    described = "".join(inspect.getdoc(x).partition("**Arguments:**")[2] for x in builders)
    assert not [name for name in kinds if f"`{name}`" not in described]


# These are also called without being compiled; the others have parts of these.
CALLED = "Model", "OperatorModel", "ImageClassifier"


@pytest.mark.parametrize("name", fast_first(len(MODELS), MODELS | MORE))
def test_every_model(name):
    make, inputs = (MODELS | MORE)[name]
    without = () if name in CALLED else ("jit",)
    ModelConformance(built(make), inputs).check(without)


BROKEN = {
    "batch": model_of_a_user(lambda u: u - jnp.broadcast_to(u.mean(0), u.shape)),
    "padding": model_of_a_user(read_out=By(lambda u: u.mean(-2))),
    "causal": model_of_a_user(read_out=By(lambda u: u[..., ::-1, :])),
    "gradient": model_of_a_user(jax.lax.stop_gradient),
    "copies": model_of_a_user(lambda u: u),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_model_is_found_by_what_does_not_hold(name, unchecked):
    model, causal = built(BROKEN[name]), name == "causal"
    inputs = small.TOKENS if causal else TEXT
    with pytest.raises(AssertionError, match=f"(?m)^Model, {name}: "):
        check_model(model, inputs, causal=causal)
