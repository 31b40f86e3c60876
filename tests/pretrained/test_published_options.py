"""Options of published checkpoints, as their `config.json` holds them; those of images with
three classes. Shapes only."""

import json
import math
import re
from pathlib import Path

import equinox as eqx
import numpy as np
import pytest

from ide_transformer.pretrained import Options, families
from ide_transformer.pretrained.checkpoint import Checkpoint
from ide_transformer.pretrained.transfer import StoredTensor, expected_shapes


FILES = sorted((Path(__file__).parent / "configs").glob("*.json"))
PARAMETERS = {
    "albert-base-v2": 11_221_680,
    "all-MiniLM-L6-v2": 22_713_216,
    "bert-base-multilingual-cased": 177_974_523,
    "bert-base-uncased": 109_514_298,
    "bert-base-uncased-2020": 109_514_298,
    "deit-base-distilled-patch16-224": 85_804_806,
    "dinov2-small": 22_056_192,
    "distilbert-base-uncased": 66_985_530,
    "distilgpt2": 81_912_576,
    "flan-t5-small": 35_332_800,
    "gemma-2b": 2_506_172_416,
    "gemma-7b": 8_537_680_896,
    "gpt-j-6b": 6_050_882_784,
    "gpt-neox-20b": 20_554_567_680,
    "gpt2": 124_439_808,
    "gpt2-medium": 354_823_168,
    "llama-2-7b": 6_738_415_616,
    "llama-3-8b": 8_030_261_248,
    "llama-3.1-8b": 8_030_261_248,
    "llama-3.2-1b": 1_235_814_400,
    "mistral-7b-v0.1": 7_241_732_096,
    "mistral-7b-v0.3": 7_248_023_552,
    "pythia-160m": 162_322_944,
    "qwen2-0.5b": 494_032_768,
    "qwen2.5-0.5b": 494_032_768,
    "qwen2.5-7b": 7_615_616_512,
    "qwen3-0.6b": 596_049_920,
    "qwen3-8b": 8_190_735_360,
    "roberta-base": 124_697_433,
    "smollm2-135m": 134_515_008,
    "t5-small": 35_330_816,
    "tinyllama-1.1b": 1_100_048_384,
    "vit-base-patch16-224": 85_800_963,
    "vit-base-patch16-224-in21k": 86_389_248,
    "whisper-base": 72_593_920,
    "whisper-tiny.en": 37_760_256,
}
# A tensor by which each class of transformers is recognised.
MARKS = {
    "AlbertForMaskedLM": "predictions.dense.weight",
    "BertForMaskedLM": "cls.predictions.transform.dense.weight",
    "BertModel": "pooler.dense.weight",
    "DeiTForImageClassificationWithTeacher": "cls_classifier.weight",
    "DistilBertForMaskedLM": "vocab_transform.weight",
    "RobertaForMaskedLM": "lm_head.dense.weight",
    "ViTForImageClassification": "classifier.weight",
    "ViTModel": "pooler.dense.weight",
}


def shapes_of(values, file):
    """The shapes of the tensors that options describe."""
    family = families()[values["model_type"]]
    names = frozenset({MARKS.get(values["architectures"][0], "")})
    skeleton = eqx.filter_eval_shape(family.build, Options(values, file), names)
    return expected_shapes(family.table(skeleton))


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_published_options_are_understood(file):
    values = json.loads(file.read_text())
    shapes = shapes_of(values, file)
    assert sum(map(math.prod, shapes.values())) == PARAMETERS[file.stem]
    stored = {k: StoredTensor(np.dtype("f4"), x, pytest.fail) for k, x in shapes.items()}
    Checkpoint.check(Options(values, file), stored, file)


@pytest.mark.heavy
@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_published_options_mean_the_tensors_of_the_library(file):
    torch, transformers = map(pytest.importorskip, ("torch", "transformers"))
    values = json.loads(file.read_text())
    kind = getattr(transformers, values["architectures"][0])
    with torch.device("meta"):
        model = kind(kind.config_class.from_dict(dict(values)))
    family = families()[values["model_type"]]
    theirs = {family.canonical(k): tuple(x.shape) for k, x in model.named_parameters()}
    shapes = shapes_of(values, file)
    assert shapes.items() <= theirs.items()
    for name in theirs.keys() - shapes.keys():
        assert name in family.copies or re.fullmatch(family.unread, name)
