"""Options of decoders, each changed in every way, against the original libraries."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from golden.cases import inputs, make_reference, outputs_of
from golden.copies import make_archive
from pretrained.option_fuzz import REMOVED, Fuzz, Outputs, changes, some
from pretrained.test_texts import own_outputs


class Base(NamedTuple):
    """A checkpoint to start from.

    - `case`: its name in `golden.cases`.
    - `options`: others in its file, where older files differ.
    - `names`: the options to change, with spaces between them; all by default.
    """

    case: str
    options: Mapping[str, Any] = {}
    names: str = ""


_ROPE = "rope_parameters rope_scaling rope_theta partial_rotary_factor"
_LINEAR = dict(rope_parameters=REMOVED, rope_scaling=dict(type="linear", factor=2.0))
_LLAMA3 = dict(
    rope_type="llama3",
    factor=8.0,
    low_freq_factor=1.0,
    high_freq_factor=4.0,
    original_max_position_embeddings=16,
)
_WINDOW = dict(use_sliding_window=True, sliding_window=4)
_OLDER_WINDOW = _WINDOW | dict(layer_types=REMOVED, max_window_layers=0)
_WINDOWS = "use_sliding_window sliding_window max_window_layers layer_types num_hidden_layers"
BASES = {
    **{name: Base(name) for name in ("gpt2", "gptj", "gpt_neox", "llama")},
    **{name: Base(name) for name in ("mistral", "qwen2", "qwen3", "gemma")},
    "gpt2, untied": Base("gpt2, untied", {}, "tie_word_embeddings hidden_size"),
    "gptj, tied": Base("gptj, tied", {}, "tie_word_embeddings head_dim"),
    "gpt_neox, older": Base(
        "gpt_neox",
        _LINEAR | dict(rotary_pct=0.5, rotary_emb_base=500.0),
        f"rotary_pct rotary_emb_base {_ROPE}",
    ),
    "llama, older": Base("llama", _LINEAR | dict(rope_theta=500.0), _ROPE),
    "llama, stretched": Base(
        "llama", dict(rope_parameters=REMOVED, rope_theta=500.0, rope_scaling=_LLAMA3), _ROPE
    ),
    "qwen2, older": Base("qwen2", _OLDER_WINDOW, _WINDOWS),
    "qwen3, older": Base("qwen3", _OLDER_WINDOW, _WINDOWS),
    "qwen3, window": Base("qwen3", _WINDOW, _WINDOWS),
    "gemma, older": Base(
        "gemma", dict(hidden_act="gelu", hidden_activation=None), "hidden_act hidden_activation"
    ),
}


def padded_inputs() -> tuple[np.ndarray, np.ndarray]:
    """Three texts: without padding, with padding behind and with padding in front."""
    tokens, mask = inputs()
    tokens, mask = tokens[[0, 1, 1]], mask[[0, 1, 1]]
    mask[2] = mask[2, ::-1]
    return tokens, mask


def at_tokens(outputs: Mapping[str, Any], mask: np.ndarray) -> Outputs:
    """Outputs where there is no padding."""
    return {name: np.asarray(outputs[name])[mask] for name in ("states", "logits")}


def decoder_fuzz(base: Base, folder: Path) -> Fuzz:
    import torch

    # Threads cost more than such a small model.
    torch.set_num_threads(1)
    tokens, mask = padded_inputs()
    kind = type(make_reference(base.case, folder, "float64"))
    file = folder / "config.json"
    options = json.loads(file.read_text()) | base.options
    options = {name: value for name, value in options.items() if value is not REMOVED}
    file.write_text(json.dumps(options))

    def theirs(at: Path) -> Outputs:
        model = kind.from_pretrained(at, dtype=torch.float64)
        return at_tokens(outputs_of(model, tokens, mask), mask)

    def ours(model: Any) -> Outputs:
        return at_tokens(own_outputs(model, tokens, mask), mask)

    # Angles and normalisations of the reference are computed in float32.
    return Fuzz(folder, theirs, ours, 1e-9 if base.case.startswith("gpt2") else 1e-6)


@pytest.mark.heavy
@pytest.mark.parametrize("name", BASES)
@pytest.mark.filterwarnings("ignore")
@pytest.mark.usefixtures("unchecked")
def test_each_option_means_what_transformers_means_or_is_refused(name, tmp_path, thorough):
    import transformers

    transformers.utils.logging.disable_progress_bar()
    base = BASES[name]
    fuzz = decoder_fuzz(base, tmp_path)
    names = base.names.split()
    chosen = (
        change
        for change in changes(fuzz.options, *(names or fuzz.known()))
        if not names or change.path[0] in names
    )
    wrong = [fuzz.check(change) for change in some(chosen, thorough)]
    print(name, len(wrong), dict(fuzz.counts))
    assert not any(wrong), "\n".join(filter(None, wrong))


class ArchiveFuzz(Fuzz):
    """An archive of glassllm whose options are changed."""

    def read(self) -> dict[str, Any]:
        self.arrays = dict(np.load(self.folder))
        return json.loads(str(self.arrays["__config__"]))

    def write(self, options: dict[str, Any]) -> None:
        np.savez(self.folder, **self.arrays | {"__config__": np.array(json.dumps(options))})


@pytest.mark.heavy
@pytest.mark.usefixtures("unchecked")
def test_each_option_means_what_glassllm_means_or_is_refused(monkeypatch, tmp_path, thorough):
    from ide_transformer.pretrained import find_pretrained

    monkeypatch.syspath_prepend(find_pretrained("glassllm").parent.parent.parent)
    from glassllm.model import GlassLM

    make_archive(tmp_path / "model.npz", vocabulary=11)
    tokens = np.arange(5)

    def theirs(at: Path) -> Outputs:
        return {"logits": GlassLM.load(at, dtype=np.float64).forward(tokens).data[0]}

    def ours(model: Any) -> Outputs:
        return {"logits": np.asarray(model(tokens))}

    fuzz = ArchiveFuzz(tmp_path / "model.npz", theirs, ours, 1e-9)
    chosen = changes(fuzz.options, *fuzz.known())
    wrong = [fuzz.check(change) for change in some(chosen, thorough)]
    print("glassllm", len(wrong), dict(fuzz.counts))
    assert not any(wrong), "\n".join(filter(None, wrong))
