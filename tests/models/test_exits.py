"""Models whose tokens stop before the end of a solve."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import fast_first, largest
from models.decoding import CONTEXT, TOKENS, check_logits, language_model

import ide_transformer as ide


@eqx.filter_jit
def solution(model, inputs):
    return model.solve(inputs)


def test_each_token_of_a_text_stops_by_itself():
    model = language_model(intervals=6)
    rule = ide.EstimatedExit(0.5)
    found = solution(model.with_exit(rule), TOKENS)
    evaluations = found.stats["field_evaluations"]
    assert evaluations.shape == TOKENS.shape
    assert 2 <= float(evaluations.min()) < float(evaluations.max()) <= 6
    assert found.succeeded
    # The first token sees none of the others.
    alone = solution(model.with_exit(rule), TOKENS[:, :1])
    assert largest(alone.u1, found.u1[:, :1]) < 1e-12
    assert largest(solution(model.with_exit(rule).with_exit(None), TOKENS).u1, found.u1) > 1e-3


def test_a_sample_stops_where_the_output_is_one_for_all_tokens():
    def block(key):
        return (ide.Attention(8, 2, key=key, std=0.5), ide.FeedForward(8, 8, key=key, std=0.5))

    control = ide.Tied(block(jax.random.key(0)), 6)
    parts = dict(
        control=control,
        constraint=ide.Free(),
        discretization=ide.Discretization(ide.LieTrotter(), exit=ide.EstimatedExit(0.01)),
        key=jax.random.key(1),
    )
    model = ide.ImageClassifier((4, 4, 1), 2, 3, 8, **parts, std=1.0)
    images = np.random.default_rng(0).normal(size=(6, 4, 4, 1))
    with pytest.raises(ide.InputError, match=r"none for each token.*stops='sample'"):
        model(images)
    found = solution(model.with_exit(ide.EstimatedExit(0.01, stops="sample")), images)
    evaluations = np.asarray(found.stats["field_evaluations"])
    assert (evaluations == evaluations[:, :1]).all()
    assert len(np.unique(evaluations)) > 1


@pytest.mark.heavy
def test_a_text_is_written_by_tokens_that_stop():
    model = language_model(intervals=3).with_exit(ide.EstimatedExit(0.5))
    assert "stop at different depths" in ide.why_not_cached(model)
    text = ide.generate(model, TOKENS[0, :4], 2, temperature=0.0)
    for position in (4, 5):
        assert text[position] == jnp.argmax(model(text[:position])[-1])


CONTROLS = [ide.Chebyshev, ide.PiecewiseConstant]


@pytest.mark.parametrize(
    "control, steps",
    fast_first(
        1,
        [
            (ide.Chebyshev, 3),
            (ide.PiecewiseConstant, 2),
            (ide.Chebyshev, 8),
            (ide.PiecewiseConstant, 3),
            (ide.PiecewiseConstant, 8),
        ],
        heavy=1,
    ),
)
def test_a_cache_serves_any_number_of_steps(control, steps):
    check_logits(language_model(control=control, intervals=4).on(ide.Mesh(intervals=steps)))


@pytest.mark.heavy
@pytest.mark.parametrize("control", fast_first(0, CONTROLS[::-1], heavy=1))
def test_a_text_at_another_depth_is_that_of_the_model_there(control):
    model = language_model(control=control, intervals=2).on(ide.Mesh(intervals=5))
    text = ide.generate(model, TOKENS[:, :3], CONTEXT - 3, temperature=0.0)
    for position in range(3, CONTEXT):
        assert (text[:, position] == jnp.argmax(model(text[:, :position])[:, -1], -1)).all()
