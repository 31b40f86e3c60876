import jax.numpy as jnp
import pytest

from ide_transformer.reporting import measure, plot_curves


def test_measure_sees_what_costs_more():
    x = jnp.ones((400, 400))

    def once(x):
        return x @ x

    def many(x):
        for _ in range(20):
            x = jnp.tanh(x @ x)
        return x

    rounds = []
    found = measure(
        {"once": (once, (x,)), "many": (many, (x,))}, rounds=5, on_round=rounds.append
    )
    assert rounds == [0, 1, 2, 3, 4, 5]
    assert found["once"].time_ratio == 1 and found["once"].milliseconds > 0
    assert found["many"].milliseconds > found["once"].milliseconds
    assert found["many"].mebibytes >= 400 * 400 * 8 / 2**20 > found["once"].mebibytes


@pytest.mark.parametrize("curves", [{"a": ([0, 1], [2, 3])}, {"a": ([0], [1]), "b": ([], [])}])
def test_plots_are_pictures(tmp_path, curves):
    plot_curves(tmp_path / "plots/curve.png", curves, x="step", y="loss")
    assert (tmp_path / "plots/curve.png").read_bytes().startswith(b"\x89PNG")
