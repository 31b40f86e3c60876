"""Networks of pdequinox beside a model: what they compute, and runs on the same data."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ide_transformer as ide
from ide_transformer import contrib, training
from ide_transformer.compare.baselines import read_baselines
from tests.helpers import built, drawn
from tests.training import stub


pytest.importorskip("pdequinox", reason="the extra emulators is not installed")

SMALL = {"FNO": dict(num_blocks=1), "Resnet": dict(num_blocks=1), "Unet": dict(num_levels=1)}


def network(name, points, **options):
    options = {"hidden_channels": 4, **SMALL[name], **options}
    return getattr(contrib, name)(points, key=jax.random.key(0), **options)


def outputs(model, inputs):
    return eqx.filter_jit(model)(inputs)


@pytest.mark.parametrize(
    ("name", "points", "channels"),
    [("FNO", (4, 6), 2), ("Resnet", (3, 4, 4), None), ("Unet", 8, None)],
)
def test_a_model_gives_the_outputs_of_its_network(name, points, channels):
    options = dict(channels=channels, output_channels=channels and 3)
    model = built(lambda: network(name, points, **options))
    shape = points if isinstance(points, tuple) else (points,)
    x = drawn((2, *shape, *([channels] if channels else [])), 0)
    a = x if channels else x[..., None]
    angles = 2 * np.pi * np.stack(np.indices(shape), -1) / np.array(shape)
    waves = np.stack([np.cos(angles), np.sin(angles)], -1).reshape(*shape, -1)
    channels_and_waves = np.concatenate([a, np.broadcast_to(waves, (2, *waves.shape))], -1)
    inner = model.control(0.0)[0].network
    channels_first = jnp.moveaxis(jnp.asarray(channels_and_waves), -1, 1)
    expected = jnp.moveaxis(outputs(eqx.filter_vmap(inner), channels_first), 1, -1)
    images = outputs(model, x)
    np.testing.assert_allclose(images, expected.reshape(images.shape), atol=1e-12)
    weights = jax.tree.leaves(eqx.filter(model, eqx.is_inexact_array))
    assert len(weights) == len(jax.tree.leaves(eqx.filter(inner, eqx.is_inexact_array)))


def test_what_a_network_cannot_take():
    with pytest.raises(ide.InputError, match=r"num_modes=5 on points=8"):
        network("FNO", 8, num_modes=5)
    with pytest.raises(ide.InputError, match=r"\(8, 6\) points.* fewer modes or levels"):
        outputs(network("Unet", (8, 6), num_levels=2), np.ones((1, 8, 6)))
    scattered = ide.Field.at(np.ones((2, 8)), np.linspace(0, 0.9, 8) ** 2, periodic=True)
    with pytest.raises(ide.InputError, match="regular grid"):
        outputs(network("Resnet", 8), scattered)


@pytest.fixture
def config(tmp_path):
    """A run on functions on a torus and their images by a nonlinear map."""
    u = drawn((24, 4, 4), 3).astype(np.float32)
    np.savez(tmp_path / "torus.npz", inputs=u, targets=u + 0.3 * np.roll(u, 1, 1) ** 2)
    schedule = [{"until": "50%", "mesh": {"layers": 1}}]
    steps = {"steps": 200, "batch_size": 4, "seed": 3, "schedule": schedule}
    tree = {
        "model": {"kind": "operator_model", "width": 8, "heads": 2, "options": {"modes": 1}},
        "data": {"name": "arrays", "path": str(tmp_path / "torus.npz"), "validation": 0.25},
        "training": {**steps, "costs": {"transport": 0.1}},
    }
    return stub.read_config(tree)


def test_what_cannot_be_compared_is_refused(config, tmp_path):
    path = tmp_path / "text.txt"
    path.write_text("to be or not to be, " * 40, encoding="utf-8")
    of_text = config.replace(data=training.DataConfig(name="text", path=path))
    muon = config.changed("optimizer", kind="muon")
    for run, message in ((of_text, "^--baseline fno: .*TextInputs"), (muon, "fno:kind=adamw")):
        with pytest.raises(ide.InputError, match=message):
            read_baselines(["fno"], run)
