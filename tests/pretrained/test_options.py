"""Options of `config.json`: read as they are meant, or refused by name; and checkpoints that
come as packages, beside the code that they were published with."""

import json
import math
from pathlib import Path

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import pytest

import ide_transformer as ide
from ide_transformer import tasks
from ide_transformer.pretrained import Options, families, find_pretrained, load_pretrained
from ide_transformer.pretrained.checkpoint import Checkpoint
from ide_transformer.pretrained.family import expected_shapes
from ide_transformer.pretrained.files import StoredTensor
from tests.golden.copies import changed_copy
from tests.helpers import GOLDEN


# As users run it: the checks of annotations would speak before the package does.
pytestmark = pytest.mark.usefixtures("unchecked")
# Options of published checkpoints and their numbers of parameters; images have three classes.
PUBLISHED = json.loads(Path(__file__).with_name("published.json").read_text())
# What transformers takes for an option that a file does not have.
DEFAULTS = json.loads(Path(__file__).with_name("defaults.json").read_text())
# A tensor by which a class of transformers is recognised.
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


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_options_are_understood(name, tmp_path):
    values, parameters = PUBLISHED[name]["options"], PUBLISHED[name]["parameters"]
    family = families()[values["model_type"]]
    names = frozenset({family.canonical(MARKS.get(values["architectures"][0], ""))})
    skeleton = eqx.filter_eval_shape(family.build, Options(values, tmp_path), names)
    shapes = expected_shapes(family.table(skeleton))
    assert sum(map(math.prod, shapes.values())) == parameters
    stored = {k: StoredTensor(np.dtype("f4"), x, pytest.fail) for k, x in shapes.items()}
    Checkpoint.check(Options(values, tmp_path), stored, tmp_path)


@pytest.mark.parametrize("family", DEFAULTS)
def test_options_that_are_left_out_are_those_of_the_library(family):
    checkpoint = Checkpoint.open(GOLDEN / family)

    def built(options):
        names = frozenset(checkpoint.tensors)
        return eqx.filter_eval_shape(checkpoint.family.build, Options(options, GOLDEN), names)

    rest = {x: y for x, y in checkpoint.options.values.items() if x not in DEFAULTS[family]}
    assert eqx.tree_equal(built(rest), built(rest | DEFAULTS[family]))


@pytest.mark.parametrize(
    ("family", "options", "message"),
    [
        ("llama", dict(model_type="mamba"), "model_type = 'mamba'.*gpt2"),
        ("llama", dict(num_key_value_heads=3), "attention_heads = 4 .*nu"),
        (
            "llama",
            dict(rope_scaling=dict(rope_type="yarn", factor=2.0)),
            "rope_type = 'yarn'.*llama3",
        ),
        # An option is named as the file calls it.
        ("distilbert", dict(dim=None), r"config\.json .*\bdim\b"),
        ("vit", dict(image_size=10), r"patch_size = 4.*\[8, 8\]"),
        ("dinov2", dict(image_size=[4, 16]), "DINOv2"),
    ],
)
def test_options_that_do_not_fit_are_named(family, options, message, tmp_path):
    with pytest.raises(ide.InputError, match=message):
        load_pretrained(changed_copy(tmp_path, family, **options))


def test_activations_that_a_file_does_not_name_right(tmp_path):
    gemma = load_pretrained(GOLDEN / "gemma")
    for legacy in ("gelu", None):
        folder = changed_copy(tmp_path, "gemma", hidden_act=legacy, hidden_activation=None)
        assert eqx.tree_equal(load_pretrained(folder), gemma)
    model = load_pretrained(changed_copy(tmp_path, "roberta", hidden_act="relu"))
    assert model.control.blocks[1].activation is ide.relu
    assert model.read_out.head.activation is ide.gelu


def test_images_have_a_side_that_the_strides_of_cvt_divide(tmp_path):
    stages = load_pretrained(changed_copy(tmp_path, "cvt", patch_stride=[4, 3])).equations
    # 4·2 for the keys of the first stage, 4·3 for the second.
    assert stages[0].inputs.image_shape == (240, 240, 3)
    assert stages[1].inputs.windows.image_shape == (60, 60, 4)


@pytest.mark.heavy
def test_glassllm_agrees_with_its_own_numpy_and_writes_its_text(monkeypatch):
    # The package's own code, off the wheel that its weights are in.
    monkeypatch.syspath_prepend(find_pretrained("glassllm").parent.parent.parent)
    theirs = {name: pytest.importorskip(f"glassllm.{name}") for name in ("model", "tokenizer")}
    path = find_pretrained("glassllm")
    reference = theirs["model"].GlassLM.load(path, dtype=np.float64)
    their_tokenizer = theirs["tokenizer"].Tokenizer.load(path.with_name("en.tokenizer.json"))
    tokenizer = tasks.PretrainedTokenizer.from_pretrained(path)
    text = tasks.shakespeare()[:3000] + "\n\n  Alice ☃ said,  “no”.\n"
    tokens = their_tokenizer.encode(text)
    assert tokenizer.encode(text).tolist() == tokens
    said = "Alice said, “no”.\n"
    assert tokenizer.decode(their_tokenizer.encode(said)) == said
    window = np.array(tokens[:128])
    expected = reference.forward(window).data[0]
    model = load_pretrained("glassllm", dtype=jnp.float64)
    logits = eqx.filter_jit(model)(window)
    assert np.abs(logits - expected).max() < 1e-12 * np.abs(expected).max()

    prompt = their_tokenizer.encode("Alice was")
    text = ide.generate(model, np.array(prompt), 40, temperature=0.0)
    steps = reference.generate(prompt, 40, greedy=True)
    assert text[len(prompt) :].tolist() == [step.token for step in steps]
