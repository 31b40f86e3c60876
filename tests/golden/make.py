"""The golden checkpoints, with random weights, and their outputs by transformers.

    python tests/golden/make.py [FOLDER]

writes tests/golden/<family>: `config.json`, `model.safetensors`, and for some `outputs.npz`,
which holds inputs and outputs. It needs the reference packages, pip install -e '.[reference]'.
The present files were written by transformers 5.24.0.
"""

import json
import sys
from pathlib import Path

import numpy as np
import torch
import transformers


sys.path[:0] = [str(Path(__file__).parents[2])]

from tests.golden.cases import CASES, GOLDEN, REMOVED, inputs_of  # noqa: E402


# What generation needs means nothing for so few tokens.
_TEXT = dict(bos_token_id=1, eos_token_id=2, pad_token_id=0)


def original(name, dtype="float64"):
    """A model in which every parameter is random: those that start as zeros or ones would hide
    a mistake."""
    case = CASES[name]
    kind = getattr(transformers, case.model)
    specials = _TEXT if "vocab_size" in case.options else {}
    torch.manual_seed(0)
    model = kind(kind.config_class(**case.options, **specials)).to(getattr(torch, dtype)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            around = 1.0 if parameter.ndim == 1 and parameter.mean() > 0.5 else 0.0
            parameter.copy_(around + 0.15 * torch.randn_like(parameter))
        for buffer, statistics in model.named_buffers():
            if buffer.endswith(("running_mean", "running_var")):
                least = 0.5 if buffer.endswith("var") else -0.5
                statistics.copy_(least + torch.rand_like(statistics))
    return model


def write(name, folder, dtype="float64"):
    """The checkpoint of a case in a folder, with the options of an older file."""
    original(name, dtype).save_pretrained(folder)
    (folder / "generation_config.json").unlink(missing_ok=True)
    file = folder / "config.json"
    values = json.loads(file.read_text()) | CASES[name].older
    values = {name: value for name, value in values.items() if value is not REMOVED}
    file.write_text(json.dumps(values, indent=2))


def read(name, folder):
    kind = getattr(transformers, CASES[name].model)
    return kind.from_pretrained(folder, dtype=torch.float64, local_files_only=True).eval()


@torch.no_grad()
def outputs_of(model, inputs, **options):
    """The states at depth T, logits and pooled vectors, those that the model has; of images,
    the states if there are no logits."""
    if "images" in inputs:
        return _outputs_of_images(model, inputs["images"], options)
    tensors = {name: torch.tensor(x) for name, x in inputs.items()}
    texts = dict(input_ids=tensors["tokens"], attention_mask=tensors["mask"].long())
    if "segments" in tensors and getattr(model.config, "type_vocab_size", 1) > 1:
        texts["token_type_ids"] = tensors["segments"]
    if model.config.is_encoder_decoder:
        model = model.encoder
    out = model(**texts, output_hidden_states=True)
    logits = out.get("logits", out.get("prediction_logits"))
    outputs = dict(states=out.hidden_states[-1], logits=logits, pooled=out.get("pooler_output"))
    return {name: x.numpy() for name, x in outputs.items() if x is not None}


def _outputs_of_images(model, images, options):
    if model.config.num_labels == 0:
        model = model.base_model
    pixels = torch.tensor(np.moveaxis(images, -1, -3).copy())
    # Without a class token CvT needs the states to find its own logits.
    out = model(pixels, output_hidden_states=True, **options)
    if "logits" in out:
        return dict(logits=out.logits.numpy())
    states = out.last_hidden_state
    if model.config.model_type == "cvt":
        states = states.flatten(2).transpose(1, 2)
        states = torch.cat([out.cls_token_value, states], dim=1)
    has_pooler = getattr(model, "pooler", None) is not None
    pooled = dict(pooled=out.pooler_output.numpy()) if has_pooler else {}
    return dict(logits=states.numpy()) | pooled


# Golden checkpoints whose outputs the fast tests compare with.
STORED = ["bert", "cvt", "dinov2", "gpt2", "llama", "qwen2", "t5", "vit"]


def stored(name):
    random = np.random.default_rng(0)
    if "vocab_size" not in CASES[name].options:
        return inputs_of(name)
    tokens, mask = random.integers(3, 61, (2, 12)), np.ones((2, 12), bool)
    mask[1, 8:] = False
    return dict(tokens=tokens, mask=mask)


def main(folder=GOLDEN):
    for name in CASES:
        if "," in name:
            continue
        at = Path(folder) / name
        # The weights of texts are stored in float32; outputs are computed in float64.
        is_text = "vocab_size" in CASES[name].options
        write(name, at, dtype="float32" if is_text else "float64")
        if name not in STORED:
            continue
        model, inputs = read(name, at), stored(name)
        arrays = inputs | outputs_of(model, inputs)
        if "images" in inputs:
            resized = dict(images=np.random.default_rng(0).normal(size=(2, 12, 4, 3)))
            any_size = name in ("cvt", "dinov2")
            options = {} if any_size else dict(interpolate_pos_encoding=True)
            resized_outputs = outputs_of(model, resized, **options)
            arrays |= {f"resized_{x}": y for x, y in (resized | resized_outputs).items()}
        np.savez_compressed(at / "outputs.npz", **arrays)


if __name__ == "__main__":
    main(*sys.argv[1:])
