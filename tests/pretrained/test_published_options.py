"""Options of published checkpoints, as their `config.json` holds them, and their numbers of
parameters; those of images with three classes. Shapes only."""

import json
import math
import re
from pathlib import Path

import equinox as eqx
import numpy as np
import pytest

from ide_transformer.pretrained import Options, families
from ide_transformer.pretrained.checkpoint import Checkpoint
from ide_transformer.pretrained.family import expected_shapes
from ide_transformer.pretrained.files import StoredTensor


PUBLISHED = json.loads(Path(__file__).with_name("published.json").read_text())
# A tensor by which each class of transformers is recognised.
MARKS = {
    "AlbertForMaskedLM": "predictions.dense.weight",
    "BertForMaskedLM": "cls.predictions.transform.dense.weight",
    "BertModel": "pooler.dense.weight",
    "CvtForImageClassification": "classifier.weight",
    "DeiTForImageClassificationWithTeacher": "cls_classifier.weight",
    "DistilBertForMaskedLM": "vocab_transform.weight",
    "RobertaForMaskedLM": "lm_head.dense.weight",
    "ViTForImageClassification": "classifier.weight",
    "ViTModel": "pooler.dense.weight",
}


def shapes_of(values, at):
    """The shapes of the tensors that options describe."""
    family = families()[values["model_type"]]
    mark = MARKS.get(values["architectures"][0], "")
    names = frozenset({family.canonical(mark)})
    skeleton = eqx.filter_eval_shape(family.build, Options(values, at), names)
    return expected_shapes(family.table(skeleton))


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_options_are_understood(name, tmp_path):
    values, parameters = PUBLISHED[name]["options"], PUBLISHED[name]["parameters"]
    shapes = shapes_of(values, tmp_path)
    assert sum(map(math.prod, shapes.values())) == parameters
    stored = {k: StoredTensor(np.dtype("f4"), x, pytest.fail) for k, x in shapes.items()}
    Checkpoint.check(Options(values, tmp_path), stored, tmp_path)


@pytest.mark.heavy
@pytest.mark.parametrize("name", PUBLISHED)
def test_published_options_mean_the_tensors_of_the_library(name, tmp_path):
    torch, transformers = map(pytest.importorskip, ("torch", "transformers"))
    values = PUBLISHED[name]["options"]
    kind = getattr(transformers, values["architectures"][0])
    with torch.device("meta"):
        model = kind(kind.config_class.from_dict(dict(values)))
    family = families()[values["model_type"]]
    tensors = {**dict(model.named_parameters()), **_statistics(model)}
    theirs = {family.canonical(k): tuple(x.shape) for k, x in tensors.items()}
    shapes = shapes_of(values, tmp_path)
    assert shapes.items() <= theirs.items()
    for rest in theirs.keys() - shapes.keys():
        assert rest in family.copies or re.fullmatch(family.unread, rest)


def _statistics(model):
    """Those of batch normalisation, which are weights here."""
    return {k: x for k, x in model.named_buffers() if k.endswith(("mean", "var"))}
