"""Layer norms that shrink with depth; the published block is tested in tests/published/."""

import jax
import pytest

import ide_transformer as ide


WIDTH = 4


@pytest.mark.parametrize(
    "operator", [ide.Damping(1.0), ide.FeedForward(WIDTH, key=jax.random.key(0))]
)
def test_an_operator_without_a_norm_is_refused(operator):
    with pytest.raises(ide.InputError, match="give an operator with LayerNorm or RMSNorm"):
        ide.LayerNormScaling(operator)
