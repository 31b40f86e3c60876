"""Options of encoders, each changed in every way: `transformers` and this package agree, or
the option is refused by name."""

from collections import Counter
from typing import Any, NamedTuple

import equinox as eqx
import numpy as np
import pytest
from golden.make_images import CVT, original, random_images, states_or_logits
from helpers import largest
from pretrained.option_fuzz import Fuzz, changes, some

import ide_transformer as ide
from ide_transformer.pretrained import load_pretrained, save_pretrained
from ide_transformer.pretrained.checkpoint import Checkpoint


class Case(NamedTuple):
    """A class of transformers, the options of its tiny checkpoint, names of options that are
    not known here, and, of a variant, those that make a difference to it."""

    model: str
    options: dict[str, Any]
    names: str = ""
    only: str = ""


SIZES = dict(
    vocab_size=31,
    hidden_size=8,
    intermediate_size=12,
    num_hidden_layers=2,
    num_attention_heads=2,
    max_position_embeddings=16,
)
DISTILBERT = dict(
    vocab_size=31, dim=8, hidden_dim=12, n_layers=2, n_heads=2, max_position_embeddings=16
)
T5 = dict(vocab_size=31, d_model=8, d_kv=4, d_ff=12, num_layers=2, num_heads=2)
T5 |= dict(relative_attention_num_buckets=8, relative_attention_max_distance=10)
IMAGE = dict(hidden_size=8, num_hidden_layers=2, num_attention_heads=2, patch_size=4)
IMAGE |= dict(image_size=8)
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
UNTIED = dict(tie_word_embeddings=False)
GATED = dict(feed_forward_proj="gated-gelu")
ALBERT = SIZES | dict(embedding_size=6)
VIT = IMAGE | dict(intermediate_size=12)
CASES = {
    "bert": Case("BertForMaskedLM", SIZES, "head_dim layer_types"),
    "bert, untied": Case(
        "BertForMaskedLM", SIZES | UNTIED, only="tie_word_embeddings hidden_act"
    ),
    "bert, pooler": Case("BertModel", SIZES, only="tie_word_embeddings hidden_act"),
    "roberta": Case("RobertaForMaskedLM", SIZES),
    "roberta, untied": Case(
        "RobertaForMaskedLM", SIZES | UNTIED, only="tie_word_embeddings pad_token_id"
    ),
    "albert": Case("AlbertForMaskedLM", ALBERT),
    "albert, untied": Case(
        "AlbertForMaskedLM", ALBERT | UNTIED, only="tie_word_embeddings hidden_act"
    ),
    "albert, pooler": Case("AlbertModel", ALBERT, only="tie_word_embeddings hidden_act"),
    "distilbert": Case(
        "DistilBertForMaskedLM",
        DISTILBERT,
        "layer_norm_eps hidden_size num_hidden_layers hidden_act type_vocab_size",
    ),
    "distilbert, untied": Case(
        "DistilBertForMaskedLM", DISTILBERT | UNTIED, only="tie_word_embeddings activation"
    ),
    "t5": Case(
        "T5EncoderModel", T5, "hidden_size num_hidden_layers num_attention_heads head_dim"
    ),
    "t5, gated": Case(
        "T5EncoderModel",
        T5 | GATED,
        only="feed_forward_proj is_gated_act dense_act_fn tie_word_embeddings",
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


def make_checkpoint(case, folder):
    """A model of the library with random weights, in a folder."""
    transformers = pytest.importorskip("transformers")
    kind = getattr(transformers, case.model)
    specials = dict(bos_token_id=1, eos_token_id=2, pad_token_id=1, decoder_start_token_id=1)
    text = not {"image_size", "patch_sizes"} & {*case.options}
    config = kind.config_class(**case.options, **(specials if text else {}))
    original(kind, config).save_pretrained(folder)
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


IMAGES = random_images((8, 8))
FEATURES = np.random.default_rng(2).standard_normal((3, 4, 12))


@eqx.filter_jit
def ours(model):
    """The same outputs, by a model of this package."""
    if isinstance(model.inputs, ide.EncodedInputs):
        states = model.inputs.encoder(FEATURES)
        inputs = ide.SourceAndText(ide.Encoded(states), TEXTS)
        return {"outputs": model(inputs), "states": states}
    read_out = model.read_out
    if isinstance(model.inputs, ide.AbstractImageInputs):
        found = {"outputs": model(IMAGES)}
        if getattr(read_out, "pooler", None) is not None:
            found["pooled"] = read_out.pooled(found["outputs"])
        return found
    kinds = model.inputs.segments
    segments = SEGMENTS if kinds is not None and len(kinds) > 1 else None
    states = model(ide.Text(TEXTS, MASK, segments))
    found = {"states": states[MASK]}
    if read_out.head is not None:
        found["logits"] = read_out.logits(states, model.inputs)[MASK]
    if read_out.pooler is not None:
        found["pooled"] = read_out.pooled(states)
    return found


def tried(fuzz, case):
    """The changes of a case. Options that nothing here asks for have a few each."""
    asked, tries = Checkpoint.open(fuzz.folder).options.asked, Counter()
    for change in changes(fuzz.options, *fuzz.known(), *case.names.split()):
        name = change.path[0]
        tries[name] += 1
        kept = name in asked or tries[name] <= 3
        if kept and (not case.only or name in case.only.split()):
            yield change


@pytest.mark.heavy
@pytest.mark.filterwarnings("ignore:.*not part of the model")
@pytest.mark.parametrize("name", CASES)
def test_an_option_is_understood_or_refused(name, tmp_path, thorough):
    case = CASES[name]
    # The library computes the softmax of T5 in single precision.
    bound = 1e-5 if name.startswith("t5") else 1e-9
    fuzz = Fuzz(tmp_path, theirs_of(make_checkpoint(case, tmp_path)), ours, bound)
    wrong = [fuzz.check(change) for change in some(tried(fuzz, case), thorough)]
    print(f"{name}: {len(wrong)} changes, {dict(fuzz.counts)}")
    assert not list(filter(None, wrong))
    assert fuzz.counts["agree"] and fuzz.counts["refused"]


@pytest.mark.heavy
@pytest.mark.filterwarnings("ignore:.*not part of the model")
@pytest.mark.parametrize(
    ("model", "options"),
    [
        ("BertForPreTraining", SIZES),
        ("BertForPreTraining", SIZES | UNTIED),
        ("RobertaForMaskedLM", SIZES | UNTIED),
        ("AlbertForPreTraining", ALBERT),
        ("DistilBertForMaskedLM", DISTILBERT | UNTIED),
        ("T5ForConditionalGeneration", T5 | GATED),
        ("ViTForMaskedImageModeling", VIT | dict(encoder_stride=4)),
        ("DeiTForMaskedImageModeling", VIT | dict(encoder_stride=4)),
        ("Dinov2Model", IMAGE),
        ("CvtModel", CVT),
        ("WhisperForConditionalGeneration", WHISPER),
    ],
)
def test_the_library_finds_every_tensor_again(model, options, tmp_path):
    """Heads and decoders too, which the model here does not have."""
    kind = make_checkpoint(Case(model, options), tmp_path / "one")
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
