"""Options of each family, each changed in every way: `transformers` and this package agree, or
the option is refused by name."""

import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import equinox as eqx
import numpy as np
import pytest
from golden.cases import CASES as GOLDEN_CASES, IN_FLOAT32
from golden.copies import make_archive
from golden.make_images import CVT, original, random_images, states_or_logits
from helpers import largest
from pretrained.option_fuzz import REMOVED, Fuzz, Outputs, changes, some
from pretrained.test_texts import own_outputs

import ide_transformer as ide
from ide_transformer.pretrained import load_pretrained, save_pretrained
from ide_transformer.pretrained.checkpoint import Checkpoint


class Case(NamedTuple):
    """A class of transformers and the options of its tiny checkpoint.

    - `names`: options to change that neither the file nor the family has.
    - `only`: of a variant, the options that make a difference to it.
    - `older`: other options in the file, where older files differ.
    """

    model: str
    options: dict[str, Any]
    names: str = ""
    only: str = ""
    older: Mapping[str, Any] = {}


def text(name: str, model: str = "", **changes: Any) -> Case:
    """A case of `golden.cases` with other options, and with fields of `Case`."""
    case = GOLDEN_CASES[name]
    own = {x: changes.pop(x) for x in ("names", "only", "older") if x in changes}
    return Case(model or case.model, case.options | changes, **own)


ROPE = "rope_parameters rope_scaling rope_theta partial_rotary_factor"
LINEAR = dict(rope_parameters=REMOVED, rope_scaling=dict(type="linear", factor=2.0))
LLAMA3 = GOLDEN_CASES["llama, stretched"].options["rope_parameters"]
LLAMA3 = {name: value for name, value in LLAMA3.items() if name != "rope_theta"}
WINDOW = dict(use_sliding_window=True, sliding_window=4)
OLDER_WINDOW = WINDOW | dict(layer_types=REMOVED, max_window_layers=0)
WINDOWS = "use_sliding_window sliding_window max_window_layers layer_types num_hidden_layers"
IMAGE = dict(hidden_size=8, num_hidden_layers=2, num_attention_heads=2, patch_size=4)
IMAGE |= dict(image_size=8)
VIT = IMAGE | dict(intermediate_size=12)
WHISPER = dict(
    vocab_size=31,
    num_mel_bins=4,
    d_model=8,
    encoder_layers=2,
    decoder_layers=2,
    encoder_attention_heads=2,
    decoder_attention_heads=2,
    encoder_ffn_dim=12,
    decoder_ffn_dim=12,
    max_source_positions=6,
    max_target_positions=12,
    begin_suppress_tokens=None,
)
UNTIED: Any = dict(tie_word_embeddings=False)
HEAD = "tie_word_embeddings hidden_act"
CASES = {
    **{name: text(name) for name in ("gpt2", "gptj", "gpt_neox", "llama")},
    **{name: text(name) for name in ("mistral", "qwen2", "qwen3", "gemma")},
    "gpt2, untied": text("gpt2, untied", only="tie_word_embeddings hidden_size"),
    "gptj, tied": text("gptj, tied", only="tie_word_embeddings head_dim"),
    "gpt_neox, older": text(
        "gpt_neox",
        older=LINEAR | dict(rotary_pct=0.5, rotary_emb_base=500.0),
        only=f"rotary_pct rotary_emb_base {ROPE}",
    ),
    "llama, older": text("llama", older=LINEAR | dict(rope_theta=500.0), only=ROPE),
    "llama, stretched": text(
        "llama",
        older=dict(rope_parameters=REMOVED, rope_theta=500.0, rope_scaling=LLAMA3),
        only=ROPE,
    ),
    "qwen2, older": text("qwen2", older=OLDER_WINDOW, only=WINDOWS),
    "qwen3, older": text("qwen3", older=OLDER_WINDOW, only=WINDOWS),
    "qwen3, window": text("qwen3", older=WINDOW, only=WINDOWS),
    "gemma, older": text(
        "gemma",
        older=dict(hidden_act="gelu", hidden_activation=None),
        only="hidden_act hidden_activation",
    ),
    "bert": text("bert", names="head_dim layer_types"),
    "bert, untied": text("bert", only=HEAD, **UNTIED),
    "bert, pooler": text("bert", "BertModel", only=HEAD),
    "roberta": text("roberta"),
    "roberta, untied": text("roberta", only="tie_word_embeddings pad_token_id", **UNTIED),
    "albert": text("albert"),
    "albert, untied": text("albert", only=HEAD, **UNTIED),
    "albert, pooler": text("albert", "AlbertModel", only=HEAD),
    "distilbert": text(
        "distilbert",
        names="layer_norm_eps hidden_size num_hidden_layers hidden_act type_vocab_size",
    ),
    "distilbert, untied": text("distilbert", only="tie_word_embeddings activation", **UNTIED),
    "t5": text("t5", names="hidden_size num_hidden_layers num_attention_heads head_dim"),
    "t5, gated": text(
        "t5",
        only="feed_forward_proj is_gated_act dense_act_fn tie_word_embeddings",
        feed_forward_proj="gated-gelu",
    ),
    "vit": Case("ViTForImageClassification", VIT | dict(num_labels=3), "mlp_ratio"),
    "vit, pooler": Case("ViTModel", VIT, only="num_labels pooler_act pooler_output_size"),
    "deit": Case("DeiTForImageClassificationWithTeacher", VIT | dict(num_labels=3)),
    "dinov2": Case("Dinov2ForImageClassification", IMAGE | dict(num_labels=3)),
    "dinov2, gated": Case(
        "Dinov2Model",
        IMAGE | dict(use_swiglu_ffn=True),
        "intermediate_size",
        only="use_swiglu_ffn hidden_act mlp_ratio intermediate_size",
    ),
    "cvt": Case("CvtForImageClassification", CVT | dict(num_labels=3)),
    "whisper": Case(
        "WhisperForConditionalGeneration", WHISPER, "hidden_size num_attention_heads"
    ),
}
TEXTS = np.random.default_rng(0).integers(3, 31, (3, 9))
# Padding before a text and after it, by the ids of RoBERTa, and such an id inside.
TEXTS[0, :3] = TEXTS[1, 6:] = TEXTS[2, 4] = 1
MASK = np.ones(TEXTS.shape, bool)
MASK[0, :3] = MASK[1, 6:] = False
SEGMENTS = np.random.default_rng(1).integers(0, 2, TEXTS.shape)
IMAGES = random_images((8, 8))
FEATURES = np.random.default_rng(2).standard_normal((3, 4, 12))


def make_checkpoint(case, folder):
    """A model of the library with random weights, in a folder."""
    transformers = pytest.importorskip("transformers")
    transformers.utils.logging.disable_progress_bar()
    kind = getattr(transformers, case.model)
    specials = dict(bos_token_id=1, eos_token_id=2, pad_token_id=1, decoder_start_token_id=1)
    is_text = not {"image_size", "patch_sizes"} & {*case.options}
    config = kind.config_class(**case.options, **(specials if is_text else {}))
    original(kind, config).save_pretrained(folder)
    file = folder / "config.json"
    options = json.loads(file.read_text()) | case.older
    options = {name: value for name, value in options.items() if value is not REMOVED}
    file.write_text(json.dumps(options))
    return kind


def theirs_of(kind):
    """The outputs of the library."""
    import torch

    # Threads cost more than such a small model.
    torch.set_num_threads(1)
    arguments = dict(dtype=torch.float64, local_files_only=True)

    @torch.no_grad()
    def theirs(folder):
        model = kind.from_pretrained(folder, **arguments).eval()
        name = kind.main_input_name
        if name == "pixel_values":
            out = model(torch.tensor(np.moveaxis(IMAGES, -1, -3).copy()))
            found = {"outputs": states_or_logits(out)}
        elif name == "input_features":
            out = model(torch.tensor(FEATURES), decoder_input_ids=torch.tensor(TEXTS))
            return {
                "outputs": out.logits.numpy(),
                "states": out.encoder_last_hidden_state.numpy(),
            }
        else:
            inputs = dict(input_ids=TEXTS, attention_mask=MASK.astype(int))
            if getattr(model.config, "type_vocab_size", 1) > 1:
                inputs["token_type_ids"] = SEGMENTS
            inputs = {name: torch.tensor(x) for name, x in inputs.items()}
            out = model(**inputs, output_hidden_states=True)
            found = {"states": out.hidden_states[-1][MASK].numpy()}
            if "logits" in out:
                found["logits"] = out.logits[MASK].numpy()
        if getattr(model, "pooler", None) is not None:
            found["pooled"] = out.pooler_output.numpy()
        return found

    return theirs


@eqx.filter_jit
def ours(model):
    """The same outputs, by a model of this package."""
    if isinstance(model.inputs, ide.EncodedInputs):
        states = model.inputs.encoder(FEATURES)
        inputs = ide.SourceAndText(ide.Encoded(states), TEXTS)
        return {"outputs": model(inputs), "states": states}
    if isinstance(model.inputs, ide.AbstractImageInputs):
        found = {"outputs": model(IMAGES)}
        if getattr(model.read_out, "pooler", None) is not None:
            found["pooled"] = model.read_out.pooled(found["outputs"])
        return found
    kinds = getattr(model.inputs, "segments", None)
    segments = SEGMENTS if kinds is not None and len(kinds) > 1 else None
    found = own_outputs(model, TEXTS, MASK, segments)
    return {name: x if name == "pooled" else x[MASK] for name, x in found.items()}


def tried(fuzz, case):
    """The changes of a case. Options that nothing here asks for have a few each."""
    asked, tries = Checkpoint.open(fuzz.folder).options.asked, Counter()
    names, only = case.names.split(), case.only.split()
    for change in changes(fuzz.options, *dict.fromkeys((*fuzz.known(), *names, *only))):
        name = change.path[0]
        tries[name] += 1
        kept = name in asked or tries[name] <= 3
        if kept and (not only or name in only):
            yield change


@pytest.mark.heavy
@pytest.mark.filterwarnings("ignore")
@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("name", CASES)
def test_an_option_is_understood_or_refused(name, tmp_path, thorough):
    case = CASES[name]
    # The library computes the softmax of T5, and angles and normalisations of decoders, in
    # single precision.
    family = name.split(",")[0]
    bound = (1e-5 if family == "t5" else 1e-6) if family in IN_FLOAT32 else 1e-9
    fuzz = Fuzz(tmp_path, theirs_of(make_checkpoint(case, tmp_path)), ours, bound)
    wrong = [fuzz.check(change) for change in some(tried(fuzz, case), thorough)]
    print(f"{name}: {len(wrong)} changes, {dict(fuzz.counts)}")
    assert not list(filter(None, wrong))
    # Of a variant of a decoder a single change may be tried.
    decoder = case.model.endswith(("CausalLM", "LMHeadModel"))
    assert decoder or (fuzz.counts["agree"] and fuzz.counts["refused"])


@pytest.mark.heavy
@pytest.mark.filterwarnings("ignore:.*not part of the model")
@pytest.mark.parametrize(
    "case",
    [
        text("bert", "BertForPreTraining"),
        text("bert", "BertForPreTraining", **UNTIED),
        text("roberta", **UNTIED),
        text("albert", "AlbertForPreTraining"),
        text("distilbert", **UNTIED),
        text("t5", "T5ForConditionalGeneration", feed_forward_proj="gated-gelu"),
        Case("ViTForMaskedImageModeling", VIT | dict(encoder_stride=4)),
        Case("DeiTForMaskedImageModeling", VIT | dict(encoder_stride=4)),
        Case("Dinov2Model", IMAGE),
        Case("CvtModel", CVT),
        Case("WhisperForConditionalGeneration", WHISPER),
    ],
    ids=lambda case: case.model,
)
def test_the_library_finds_every_tensor_again(case, tmp_path):
    """Heads and decoders too, which the model here does not have."""
    kind = make_checkpoint(case, tmp_path / "one")
    ours = load_pretrained(tmp_path / "one")
    save_pretrained(ours, tmp_path / "two", like=tmp_path / "one")
    loaded = [
        kind.from_pretrained(tmp_path / name, dtype="float64", output_loading_info=True)
        for name in ("one", "two")
    ]
    assert not any(any(info.values()) for _, info in loaded)
    before, after = (model.state_dict() for model, _ in loaded)
    assert before.keys() == after.keys()
    for name, x in before.items():
        assert largest(x.numpy(), after[name].numpy()) < 1e-14


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
