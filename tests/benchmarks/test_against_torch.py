"""The comparison with PyTorch: both learn the same, in the same arithmetic."""

import contextlib
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from helpers import largest

import ide_transformer as ide
from benchmarks import decode
from benchmarks.against_torch import against_torch
from benchmarks.shared.timing import Rounds
from benchmarks.with_torch.ours import OwnTraining, Setting


@pytest.mark.heavy
def test_pytorch_learns_the_same():
    """The loss over some AdamW steps, and every weight after them."""
    pytest.importorskip("torch")
    from benchmarks.with_torch.theirs import TorchTraining

    jax.config.update("jax_enable_x64", False)
    try:
        setting = Setting(2, 3, 6, 16, heads=2, vocabulary=11)
        ours = OwnTraining(setting)
        torch = TorchTraining(
            *(setting, ours.initial_weights, ours.batches),
            *(setting.config.optimizer, ours.learning_rates(), False),
        )
        steps = 5
        np.testing.assert_allclose(ours.losses(steps), torch.losses(steps), rtol=1e-5)
        found, expected = ours.state(), torch.state()
    finally:
        jax.config.update("jax_enable_x64", True)
    assert set(found) == set(expected)
    for name, weight in found.items():
        assert largest(weight, expected[name]) < 1e-5, name
        moved = np.abs(weight - ours.initial_weights[name]).max()
        assert moved > 1e-5, name


class Recorder:
    """In the place of what is compared: notes the precision of products at each call."""

    def __init__(self):
        self.precisions, self.initial_weights, self.batches = [], {}, []

    def call(self, method, *arguments):
        self.precisions.append(jax.config.jax_default_matmul_precision)
        return {"turn": 1.0, "peak_mebibytes": 1.0}.get(method, np.ones(2))

    def __getattr__(self, method):
        return lambda *arguments: self.call(method, *arguments)


def test_products_are_in_full_float32_as_in_pytorch(monkeypatch):
    recorder, paired = Recorder(), Recorder()
    llama = SimpleNamespace(inputs=SimpleNamespace(vocabulary=3))
    monkeypatch.setattr(decode, "load_llama", lambda path: (llama, "random"))
    monkeypatch.setattr(decode, "OwnGeneration", lambda *_, **options: recorder)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    decode.decode("glassllm", Rounds(2))
    monkeypatch.setattr("benchmarks.against_torch.OwnTraining", lambda setting: recorder)
    monkeypatch.setattr(
        "benchmarks.against_torch.PairedProcess", lambda *_: contextlib.nullcontext(paired)
    )
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name)
    against_torch(Setting(1, 2, 6, 16), Rounds(2), steps=1, curve=1)
    assert len(recorder.precisions) >= 10 and set(recorder.precisions) == {"float32"}


@pytest.mark.heavy
def test_pytorch_computes_in_full_float32_where_its_model_lies(monkeypatch):
    torch, transformers = map(pytest.importorskip, ("torch", "transformers"))
    from benchmarks.with_torch import generation, theirs

    torch.set_float32_matmul_precision("medium")
    assert theirs.prepared_device().type in ("cuda", "cpu")
    assert torch.get_float32_matmul_precision() == "highest"
    model = torch.nn.Linear(2, 2)
    llama = SimpleNamespace(from_pretrained=lambda folder, dtype: model)
    monkeypatch.setattr(transformers, "LlamaForCausalLM", llama)
    monkeypatch.setattr(generation, "prepared_device", lambda: torch.device("meta"))
    made = generation.TorchGeneration("", np.ones((1, 2), np.int32), 3)
    assert model.weight.device.type == made._tokens.device.type == "meta"


def test_without_pytorch_the_command_to_install_it_is_told(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ide.InputError, match=r"pip install -e '\.\[reference\]'"):
        against_torch(Setting(1, 2, 6, 16), Rounds(2), steps=1, curve=1)
