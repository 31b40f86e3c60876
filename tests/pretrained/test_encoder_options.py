"""Options of encoders, each changed in every way: `transformers` and this package agree, or
the option is refused by name."""

from typing import Any, NamedTuple

import equinox as eqx
import numpy as np
import pytest
from golden.make_images import original, random_images, states_or_logits
from pretrained.option_fuzz import Fuzz, changes

import ide_transformer as ide


class Case(NamedTuple):
    """A class of transformers, the options of its tiny checkpoint, and the names of options
    that its configuration file could hold too."""

    model: str
    options: dict[str, Any]
    names: str


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
_ALL = "quantization_config num_labels output_past"
_TEXT = f"{_ALL} position_embedding_type pruned_heads head_dim"
CASES = {
    "bert": Case("BertForMaskedLM", SIZES, f"{_TEXT} layer_types pooler_type"),
    "bert, untied": Case("BertForMaskedLM", SIZES | dict(tie_word_embeddings=False), ""),
    "bert, pooler": Case("BertModel", SIZES, ""),
    "roberta": Case("RobertaForMaskedLM", SIZES, _TEXT),
    "albert": Case(
        "AlbertForMaskedLM",
        SIZES | dict(embedding_size=6),
        f"{_TEXT} is_decoder layers_to_keep",
    ),
    "albert, untied": Case(
        "AlbertModel", SIZES | dict(embedding_size=6, tie_word_embeddings=False), ""
    ),
    "distilbert": Case(
        "DistilBertForMaskedLM",
        DISTILBERT,
        f"{_TEXT} layer_norm_eps hidden_size num_hidden_layers hidden_act type_vocab_size",
    ),
    "t5": Case(
        "T5EncoderModel",
        T5,
        f"{_ALL} n_positions hidden_size num_hidden_layers num_attention_heads head_dim",
    ),
    "t5, gated": Case("T5EncoderModel", T5 | dict(feed_forward_proj="gated-gelu"), ""),
    "vit": Case(
        "ViTForImageClassification",
        IMAGE | dict(intermediate_size=12, num_labels=3),
        f"{_ALL} head_dim mlp_ratio",
    ),
    "vit, pooler": Case("ViTModel", IMAGE | dict(intermediate_size=12), "num_labels"),
    "deit": Case(
        "DeiTForImageClassificationWithTeacher",
        IMAGE | dict(intermediate_size=12, num_labels=3),
        f"{_ALL} head_dim",
    ),
    "dinov2": Case("Dinov2ForImageClassification", IMAGE | dict(num_labels=3), _ALL),
    "dinov2, gated": Case(
        "Dinov2Model", IMAGE | dict(use_swiglu_ffn=True), "head_dim intermediate_size"
    ),
    "whisper": Case(
        "WhisperForConditionalGeneration",
        WHISPER,
        f"{_ALL} num_hidden_layers hidden_size num_attention_heads forced_decoder_ids",
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
    text = "image_size" not in case.options
    config = kind.config_class(**case.options, **(specials if text else {}))
    original(kind, config).save_pretrained(folder)
    return kind


def theirs_of(kind):
    """The outputs of the library."""
    import torch

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
    if isinstance(model, ide.EncoderDecoder):
        states = model.encoder(FEATURES)
        inputs = ide.SourceAndText(ide.Encoded(states), TEXTS)
        return {"outputs": model(inputs), "states": states}
    if isinstance(model, ide.ImageEncoder):
        found = {"outputs": model(IMAGES)}
        if model.pooler is not None:
            found["pooled"] = model.pooled(found["outputs"])
        return found
    segments = SEGMENTS if model.segment_kinds > 1 else None
    states = model(ide.Text(TEXTS, MASK, segments))
    found = {"states": states[MASK]}
    if model.head is not None:
        found["logits"] = model.logits(states)[MASK]
    if model.pooler is not None:
        found["pooled"] = model.pooled(states)
    return found


@pytest.mark.heavy
@pytest.mark.parametrize("name", CASES)
def test_an_option_is_understood_or_refused(name, tmp_path):
    case = CASES[name]
    fuzz = Fuzz(tmp_path, theirs_of(make_checkpoint(case, tmp_path)), ours, 1e-9)
    wrong = [fuzz.check(change) for change in changes(fuzz.options, *case.names.split())]
    print(name, len(wrong), dict(fuzz.counts))
    assert not list(filter(None, wrong))
