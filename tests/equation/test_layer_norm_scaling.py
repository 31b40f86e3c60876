"""Layer norms that shrink with depth; the published block is tested in tests/published/."""

import jax
import pytest

import ide_transformer as ide


WIDTH = 4


def feed_forward(normalization):
    return ide.FeedForward(WIDTH, normalization=normalization, key=jax.random.key(0))


@pytest.mark.parametrize(
    "operator",
    [ide.Damping(1.0), *map(feed_forward, (ide.Free(), ide.Sphere(), ide.RMSSphere()))],
)
def test_an_operator_without_a_norm_is_refused(operator):
    with pytest.raises(ide.InputError, match="give an operator with LayerNorm or RMSNorm"):
        ide.LayerNormScaling(operator)
