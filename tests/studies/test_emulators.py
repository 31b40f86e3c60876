"""Emulators on APEBench, through its script."""

import json

import jax
import numpy as np
import pytest
from running import run_here


SIZES = dict(
    num_points=20,
    num_train_samples=3,
    num_test_samples=2,
    train_temporal_horizon=4,
    test_temporal_horizon=6,
    batch_size=2,
)
BURGERS = ":".join(["diff_burgers", *(f"{name}={size}" for name, size in SIZES.items())])
NETWORK, LOCAL = "Pure;3;identity", "emulators/local"


def study(capsys, folder, *options, **expected):
    where = ("--json", folder / "rows.json", "--runs", folder / "weights")
    chosen = ("--scenarios", BURGERS, "--models", f"{NETWORK},{LOCAL}", "--seeds", "1")
    with jax.numpy_rank_promotion("allow"):
        return run_here(
            capsys, "emulators.py", "--steps", "5", *where, *chosen, *options, **expected
        )


@pytest.mark.heavy
def test_a_run_is_that_of_the_benchmark_and_is_kept(tmp_path, capsys):
    apebench = pytest.importorskip("apebench")
    for wrong, message in (
        (("--models", "Ress;3"), "no such network"),
        (("--scenarios", "diff_burgrs"), "Did you mean diff_burgers"),
    ):
        said = study(capsys, tmp_path, *wrong, expected=2)
        assert message in said and not any(tmp_path.iterdir())
    study(capsys, tmp_path)
    rows = json.loads((tmp_path / "rows.json").read_text())
    scenario = apebench.scenarios.difficulty.Burgers(
        optim_config="adam;5;warmup_cosine;0.0;1e-3;1", **SIZES
    )
    with jax.numpy_rank_promotion("allow"):
        found, _ = scenario(network_config=NETWORK, start_seed=1)
    expected = [found[f"mean_nRMSE_{i:04d}"][0] for i in range(1, 7)]
    assert np.allclose(rows[0]["errors"], expected, rtol=1e-4)
    capsys.readouterr()
    # Weights are kept: they are tested on other grids without another training.
    assert "it/s" not in study(capsys, tmp_path, "--points", "20,40")
    after = json.loads((tmp_path / "rows.json").read_text())
    assert [row | {"others": {}} for row in after] == rows
    for row in after:
        assert np.allclose(row["others"]["20"], row["errors"], rtol=1e-4)
