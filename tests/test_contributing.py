"""The examples of CONTRIBUTING.md run, and show what they say."""

import importlib
import json
import re
import sys

import jax.numpy as jnp
import numpy as np
from helpers import ROOT

import ide_transformer as ide
from ide_transformer.pretrained import Options, families, tensors_of, write_tensors


TEXT = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")


def example(about):
    code = re.findall(r"```python\n(.*?)```", TEXT, flags=re.S)
    return next(block for block in code if about in block)


def run(about):
    names = {"__name__": "example"}
    exec(example(about), names)
    return names


def test_the_scheme():
    names = run("class Kutta3")
    control = ide.Tied((ide.Damping(0.5),), num_intervals=2)
    equation = ide.Equation(control, ide.Free(), ide.TokenDomain.uniform(3))
    u0 = jnp.ones((3, 8))
    errors = [
        float(
            np.abs(
                ide.solve(equation, u0, solver=names["Kutta3"](), steps_per_interval=n).u1
                - np.exp(-1)
            ).max()
        )
        for n in (4, 8)
    ]
    assert 7.5 < errors[0] / errors[1] < 8.5


def test_the_operator():
    names = run("class Consensus")
    operator, u0 = names["Consensus"](2), names["u0"]
    domain = ide.TokenDomain.uniform(3).padded(jnp.array([True, True, False]))
    assert np.allclose(operator(u0, domain), [[0, 0], [-1, -1], [-3, -3]])
    u1 = ide.solve(names["equation"], u0, solver=ide.RK4()).u1
    assert np.allclose(u1, [[0, 1]] * 3, atol=0.1)


def test_the_constraint(capsys):
    names = run("class Ball")
    assert float(names["solution"].stats["constraint_residual"]) < 1e-12
    assert float(np.abs(names["solution"].u1 - names["u0"]).max()) > 0.1


def test_the_family(tmp_path, monkeypatch):
    """Read from the folder of the families, written back, and read again."""
    (tmp_path / "small_gpt.py").write_text(example('"small_gpt"'))
    module = importlib.import_module("ide_transformer.pretrained.families")
    monkeypatch.setattr(module, "__path__", [*module.__path__, str(tmp_path)])
    families.cache_clear()
    try:
        _round_trip(tmp_path)
    finally:
        families.cache_clear()
        sys.modules.pop("ide_transformer.pretrained.families.small_gpt", None)


def _round_trip(folder):
    options = {
        "model_type": "small_gpt",
        "vocab_size": 5,
        "hidden_size": 8,
        "num_attention_heads": 2,
        "num_hidden_layers": 2,
        "intermediate_size": 12,
    }
    family = families()["small_gpt"]
    model = family.build(Options(options, folder / "config.json"), frozenset())
    (folder / "config.json").write_text(json.dumps(options))
    write_tensors(folder, tensors_of(family.table(model)))
    loaded = ide.load_pretrained(folder)
    tokens = np.arange(5)
    assert np.array_equal(loaded(tokens), model(tokens))
    ide.save_pretrained(loaded, folder / "back", like=folder)
    assert np.array_equal(ide.load_pretrained(folder / "back")(tokens), model(tokens))


def test_it_stays_short():
    assert len(TEXT.splitlines()) < 200
