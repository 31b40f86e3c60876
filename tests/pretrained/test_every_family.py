"""Every family of checkpoints: against stored outputs, and, heavy, against transformers; models
with fewer layers and with other step sizes."""

import re

import equinox as eqx
import numpy as np
import pytest

import ide_transformer as ide
from ide_transformer.dynamics import in_layers, keep_layers
from ide_transformer.pretrained import families, load_pretrained, save_pretrained
from tests.conformance.families import check_family
from tests.golden.cases import CASES, IN_FLOAT32, inputs_of
from tests.golden.copies import make_archive, tensors_of
from tests.helpers import GOLDEN, ROOT, drawn, fast_first, largest
from tests.models import examples as small


TOKENS = np.array([1, 5, 2, 9, 0])
FAMILIES = [name for name in CASES if "," not in name]


@pytest.fixture
def make():
    """tests/golden/make.py, which runs the library. On one thread: more cost more than such
    small models."""
    pytest.importorskip("transformers").utils.logging.disable_progress_bar()
    from tests.golden import make

    make.torch.set_num_threads(1)
    return make


def outputs_for(inputs):
    """The outputs of `golden.make`, by a model of this package."""

    @eqx.filter_jit
    def compiled(model):
        if isinstance(model.inputs, ide.models.AbstractImageInputs):
            outputs = dict(logits=model(inputs["images"]))
            if getattr(model.read_out, "pooler", None) is not None:
                outputs["pooled"] = model.read_out.pooled(outputs["logits"])
            return outputs
        kinds = getattr(model.inputs, "segments", None)
        segments = inputs.get("segments") if kinds is not None and len(kinds) > 1 else None
        text = ide.Text(inputs["tokens"], inputs["mask"], segments)
        if isinstance(model.read_out, ide.models.TokenLogits):
            u1, normalization = model.solve(text).u1, model.read_out.normalization
            return dict(states=normalization.project(u1), logits=model.outputs(u1))
        outputs = dict(states=model(text))
        if model.read_out.head is not None:
            outputs["logits"] = model.read_out.logits(outputs["states"], model.inputs)
        if model.read_out.pooler is not None:
            outputs["pooled"] = model.read_out.pooled(outputs["states"])
        return outputs

    return lambda model: without_padding(compiled(model), inputs)


def without_padding(outputs, inputs):
    mask = inputs.get("mask", ...)
    return {name: x if name == "pooled" else x[mask] for name, x in outputs.items()}


def stored(family):
    """Inputs and outputs of a golden checkpoint."""
    arrays = dict(np.load(GOLDEN / family / "outputs.npz"))
    names = ("states", "logits", "pooled")
    return arrays, {name: arrays[name] for name in names if name in arrays}


def tolerance(name):
    return IN_FLOAT32.get(name.split(",")[0], 1e-11)


def test_no_family_is_left_out():
    assert set(families()) == {*FAMILIES, "glassllm"}
    assert {path.parent.name for path in GOLDEN.glob("*/config.json")} == {*FAMILIES}


# Families whose table and options nearly equal another family's.
LIKE_OTHERS = ["gptj", "mistral", "qwen2", "gemma", "roberta", "distilbert", "deit"]
OF_THEIR_OWN = [name for name in FAMILIES if name not in LIKE_OTHERS]


# A decoder, one with rotations and shared keys, an encoder, images, and biases of positions;
# the heavy test compares all families with the library itself.
@pytest.mark.parametrize("family", ["gpt2", "llama", "bert", "vit", "t5"])
def test_a_golden_checkpoint(family):
    inputs, outputs = stored(family)
    expected = without_padding(outputs, inputs)
    single = 1e-5 if family == "bert" else None
    options = dict(tolerance=tolerance(family), single=single)
    check_family(GOLDEN / family, outputs_for(inputs), expected, **options)


def test_an_archive(tmp_path):
    make_archive(tmp_path / "model.npz", vocabulary=11)
    outputs = eqx.filter_jit(lambda model: model(np.arange(5)))
    expected = np.asarray(outputs(load_pretrained(tmp_path / "model.npz")))
    check_family(tmp_path / "model.npz", outputs, expected)


@pytest.mark.parametrize("family", fast_first(1, ["vit", "dinov2", "cvt"]))
def test_images_of_another_size(family, unchecked):
    arrays, _ = stored(family)
    model, images = load_pretrained(GOLDEN / family), arrays["resized_images"]
    if family != "cvt":
        grid = tuple(side // model.inputs.stride for side in images.shape[-3:-1])
        model = model.on(ide.Mesh(tokens=grid))
    # The library interpolates the positions of DINOv2 in single precision.
    bound = 1e-6 if family == "dinov2" else 1e-12
    assert largest(eqx.filter_jit(model)(images), arrays["resized_logits"]) < bound


@pytest.mark.heavy
@pytest.mark.usefixtures("unchecked")
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", CASES)
def test_the_library_agrees_or_an_option_is_refused(name, tmp_path, thorough, make):
    make.write(name, tmp_path)
    inputs = inputs_of(name)

    def theirs(at):
        return without_padding(make.outputs_of(make.read(name, at), inputs), inputs)

    bounds = dict(tolerance=tolerance(name), single=2e-5 if name in OF_THEIR_OWN else None)
    every = 1 if thorough else 48 if name in LIKE_OTHERS else 16
    changes = dict(options=CASES[name].only.split(), every=every)
    check_family(tmp_path, outputs_for(inputs), theirs, **bounds, **changes)


def test_a_package_adds_families_by_an_entry_point(tmp_path, monkeypatch):
    (tmp_path / "tiny.py").write_text("FAMILIES = {'tiny': None}")
    distribution = tmp_path / "tiny-1.0.dist-info"
    distribution.mkdir()
    (distribution / "METADATA").write_text("Name: tiny\nVersion: 1.0\n")
    entry = "[ide_transformer.families]\ntiny = tiny:FAMILIES\n"
    (distribution / "entry_points.txt").write_text(entry)
    monkeypatch.syspath_prepend(tmp_path)
    assert families.__wrapped__().keys() - families().keys() == {"tiny"}


@pytest.mark.heavy
def test_a_family_of_ones_own(tmp_path, monkeypatch, unchecked):
    page = (ROOT / "docs/how-to/own-family.md").read_text(encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    names = {"__name__": "page"}
    for block in re.findall(r"```python\n(.*?)```", page, flags=re.S)[:2]:
        exec(block, names)
    monkeypatch.setitem(families(), "tiny", names["FAMILIES"]["tiny"])
    outputs = eqx.filter_jit(lambda model: model(TOKENS))
    reference = lambda at: names["original"](at, TOKENS)  # noqa: E731
    check_family(names["folder"].resolve(), outputs, reference, tolerance=1e-9, every=6)


def rescaled(model, layers=None):
    """The model with only some layers, and a random step size for each feature and operator."""
    shorter = in_layers(model) if layers is None else keep_layers(model, layers)
    width = shorter.control.blocks[0].innermost.output.weight.shape[-1]
    operators = [x.operator for x in shorter.control.blocks]
    rates = [drawn((shorter.layers, width), seed) for seed in range(len(operators))]
    blocks = tuple(map(ide.equation.Scaled, operators, rates))
    return eqx.tree_at(lambda m: m.control.blocks, shorter, blocks)


# Post-norm, with a list of the kinds of layers, with step sizes of its own.
@pytest.mark.filterwarnings("ignore:.*not part of the model")
@pytest.mark.parametrize("family", ["bert", "qwen2", "dinov2"])
def test_a_rescaled_last_layer_is_a_checkpoint(family, tmp_path):
    inputs, _ = stored(family)
    outputs = outputs_for(inputs)
    native = load_pretrained(GOLDEN / family, dtype="float64")
    model = native.each_equation(lambda stage: rescaled(stage, [stage.layers - 1]))
    save_pretrained(model, tmp_path / "new", like=GOLDEN / family)
    again = load_pretrained(tmp_path / "new")
    assert {stage.layers for stage in again.equations} == {1}
    expected, loaded = outputs(model), outputs(again)
    assert max(largest(expected[name], loaded[name]) for name in expected) < 1e-12
    # Nothing is left of the other layer.
    names = "\n".join(tensors_of(tmp_path / "new"))
    assert ".0." in names and ".1." not in names


def test_of_all_formats(tmp_path):
    make_archive(tmp_path / "whole.npz", vocabulary=11)
    changes = [
        (tmp_path / "whole.npz", lambda m: rescaled(m, [0])),
        (GOLDEN / "albert", lambda m: keep_layers(m, [1])),
    ]
    for source, change in changes:
        model = change(load_pretrained(source))
        at = tmp_path / f"new-{source.name}"
        save_pretrained(model, at, like=source)
        again = load_pretrained(at)
        assert again.layers == model.layers
        loaded, expected = (small.outputs_of(x, np.arange(4)) for x in (again, model))
        assert largest(loaded, expected) < 1e-5 * np.abs(expected).max()


def test_a_stage_of_cvt_keeps_the_layers_that_the_library_needs(tmp_path):
    native = load_pretrained(GOLDEN / "cvt")
    save_pretrained(native.each_equation(rescaled), tmp_path / "new", like=GOLDEN / "cvt")
    assert [x.layers for x in load_pretrained(tmp_path / "new").equations] == [1, 2]
    with pytest.raises(ide.InputError, match=r"stage 1 .*1 layers"):
        save_pretrained(keep_layers(native, [1]), tmp_path / "other", like=GOLDEN / "cvt")


@pytest.mark.heavy
@pytest.mark.filterwarnings("ignore")
def test_the_library_loads_every_family_with_one_layer(tmp_path, make):
    """All tensors have their places, and options fit each other. The second stage of the golden
    CvT has the fewest layers that the library reads."""
    for family in FAMILIES:
        if family == "cvt":
            continue
        native = load_pretrained(GOLDEN / family)
        shorter = native.each_equation(lambda stage: keep_layers(stage, [stage.layers - 1]))
        save_pretrained(shorter, tmp_path / family, like=GOLDEN / family)
        kind = getattr(make.transformers, CASES[family].model)
        options = dict(local_files_only=True, output_loading_info=True)
        _, report = kind.from_pretrained(tmp_path / family, **options)
        assert not any(report.values()), (family, report)
