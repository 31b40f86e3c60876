"""What every model of this package does beyond `check_model`."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from ide_transformer import models
from ide_transformer.equation.domain import by_samples
from ide_transformer.integration import Mesh
from ide_transformer.models import Field, Text
from ide_transformer.models.text_inputs import as_text
from ide_transformer.testing.models import ModelProperties, outputs_at


class ModelConformance(ModelProperties):
    """Of chains, fields and learned prefixes too."""

    properties = (
        *ModelProperties.properties,
        *("shape", "finite", "jit", "dropout", "mesh", "cache"),
    )

    def seen_tokens(self):
        is_seen = seen_of(self.inputs)
        if is_seen is None:
            return None
        # Learned tokens come first.
        prefix = np.ones((len(is_seen), self.model.inputs.prefix_tokens), bool)
        after = np.concatenate([prefix, is_seen], axis=1)
        outputs = jax.tree.leaves(eqx.filter_eval_shape(self.model, self.inputs))
        return after if after.shape in [x.shape[:2] for x in outputs] else is_seen

    def padding(self):
        """what stands at padding changes no other output."""
        return self.outputs_for(other_at_padding(self.inputs)), self.outputs, 1e-12

    def shape(self):
        """`embed` gives a state `[batch, tokens, features]`, with the tokens of its domain and
        the `features` of the inputs, and outputs keep the batch axes."""
        u0, domain = eqx.filter_eval_shape(self.model.embed, self.inputs)
        batches = [len(x) for x in jax.tree.leaves(self.outputs)]
        expected = len(u0), len(domain.points), self.model.features
        return [u0.shape, batches], [expected, [len(u0)] * len(batches)]

    def finite(self):
        """outputs are finite."""
        finite = [np.isfinite(x) for x in jax.tree.leaves(self.outputs)]
        return finite, [np.ones_like(x) for x in finite]

    def jit(self):
        """a sample by itself, not compiled, has the outputs that it has in a batch."""
        by_sample = by_samples(self.inputs)
        sample = jax.tree.map(lambda x, each: x[0] if each else x, self.inputs, by_sample)
        alone = jax.tree.map(lambda x: x[None], self.model(sample))
        first_seen = None if self.seen is None else self.seen[:1]
        return outputs_at(alone, first_seen), jax.tree.map(lambda x: x[:1], self.outputs), 1e-12

    def dropout(self):
        """where the model is random, a key changes its outputs."""
        if not self.model.random:
            return (), ()
        drawn = eqx.filter_jit(self.model)(self.inputs, key=jax.random.key(0))
        drawn = outputs_at(drawn, self.seen)
        pairs = zip(jax.tree.leaves(drawn), jax.tree.leaves(self.outputs), strict=True)
        return any(not np.allclose(x, y, rtol=1e-12, atol=1e-12) for x, y in pairs), True

    def mesh(self):
        """on twice as many layers, steps, and points of functions of a feature, outputs have
        the same shape, and from there back to its own mesh it is the same model."""
        model, layers = self.model, self.model.control.layers
        sizes = {"layers": layers}
        if model.mesh.controller is None:
            sizes["steps"] = model.mesh.steps
        if model.space is not None:
            sizes["width"] = model.features
        native, doubled = Mesh(**sizes), Mesh(**{name: 2 * x for name, x in sizes.items()})

        @eqx.filter_jit
        def there_and_back(model):
            return model.on(native), model.on(native).on(doubled).on(native)

        outputs = eqx.filter_eval_shape(lambda m, x: m.on(doubled)(x), model, self.inputs)
        first, back = there_and_back(model)
        if {part.control.layers for part in model.equations} == {layers}:
            first = model
        shapes = [[x.shape for x in jax.tree.leaves(y)] for y in (outputs, self.outputs)]
        kinds = [jax.tree.structure(x) for x in (outputs, self.outputs)]
        same = kinds[0] == kinds[1] and jax.tree.structure(back) == jax.tree.structure(first)
        weights = [eqx.filter(x, eqx.is_inexact_array) for x in (back, first)]
        expected = {"shapes": shapes[1], "weights": weights[1], "structure": True}
        return {"shapes": shapes[0], "weights": weights[0], "structure": same}, expected, 2e-12

    def cache(self):
        """token by token a `CachedDecoder` gives the logits of the whole text."""
        model = self.model
        of_texts = type(model.inputs) is models.TextInputs
        if not (of_texts and isinstance(model.read_out, models.TokenLogits)):
            return (), ()
        if models.why_not_cached(model) is not None:
            return (), ()
        tokens = jnp.asarray(as_text(self.inputs).tokens)
        first = (tokens.shape[1] + 1) // 2
        logits = logits_one_by_one(model, tokens, first)
        later = None if self.seen is None else self.seen[:, first - 1 :]
        return outputs_at(logits, later), self.outputs[:, first - 1 :], 1e-12


def seen_of(part):
    """The tokens of a batch that are not padding."""
    if isinstance(part, Text) and part.mask is not None:
        return np.broadcast_to(np.asarray(part.mask, bool), part.tokens.shape)
    if isinstance(part, Field) and part.domain.weights is not None:
        return np.broadcast_to(np.asarray(part.domain.weights) > 0, part.values.shape[:2])
    return None


def other_at_padding(part):
    is_seen = seen_of(part)
    if is_seen is None:
        return part
    if isinstance(part, Text):
        tokens = np.asarray(part.tokens)
        return part._replace(tokens=np.where(is_seen, tokens, (tokens + 1) % tokens.max()))
    values = np.asarray(part.values)
    unseen = ~is_seen.reshape(*is_seen.shape, *[1] * (values.ndim - 2))
    return part._replace(values=values + unseen)


@eqx.filter_jit
def logits_one_by_one(model, tokens, first):
    """The logits after each token from the prompt on, read one by one."""
    decoder = models.CachedDecoder(model, tokens.shape[-1])
    logits, cache = decoder.prefill(tokens[..., :first])

    def read(cache, position):
        token = jax.lax.dynamic_index_in_dim(tokens, position, -1, keepdims=False)
        logits, cache = decoder.extend(token, position, cache)
        return cache, logits

    _, later_logits = jax.lax.scan(read, cache, jnp.arange(first, tokens.shape[-1]))
    return jnp.moveaxis(jnp.concatenate([logits[None], later_logits]), 0, -2)
