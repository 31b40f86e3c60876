"""Options of published checkpoints, as their `config.json` holds them; those of images with
fewer classes. Shapes only."""

import json
import re
from pathlib import Path

import equinox as eqx
import numpy as np
import pytest

import ide_transformer as ide
from ide_transformer.pretrained import Options, families
from ide_transformer.pretrained.checkpoint import Checkpoint
from ide_transformer.pretrained.transfer import StoredTensor, expected_shapes


FILES = sorted((Path(__file__).parent / "configs").glob("*.json"))
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


def _options(file, **changed):
    return Options(json.loads(file.read_text()) | changed, file)


def _tensors(file):
    """The shapes that the file's options describe."""
    options = _options(file)
    family = families()[options.values["model_type"]]
    names = frozenset({MARKS.get(options.values["architectures"][0], "")})
    skeleton = eqx.filter_eval_shape(family.build, options, names)
    return expected_shapes(family.table(skeleton))


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_published_options_are_known(file):
    shapes = _tensors(file)
    stored = {name: StoredTensor(np.dtype("f4"), x, pytest.fail) for name, x in shapes.items()}
    Checkpoint.check(_options(file), stored, file)
    with pytest.raises(ide.InputError, match=r"tomorrow = 1: not known for models"):
        Checkpoint.check(_options(file, tomorrow=1), stored, file)


@pytest.mark.heavy
@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_published_options_mean_the_shapes_of_the_library(file):
    torch, transformers = map(pytest.importorskip, ("torch", "transformers"))
    options = json.loads(file.read_text())
    kind = getattr(transformers, options["architectures"][0])
    family = families()[options["model_type"]]
    with torch.device("meta"):
        model = kind(kind.config_class.from_dict(options))
    theirs = {family.canonical(name): tuple(x.shape) for name, x in model.named_parameters()}
    shapes = _tensors(file)
    assert shapes.items() <= theirs.items()
    for name in theirs.keys() - shapes.keys():
        assert name in family.copies or re.fullmatch(family.unread, name)
