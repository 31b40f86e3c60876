"""Every family of checkpoints: against stored outputs, and, heavy, against transformers."""

import re
from dataclasses import replace
from pathlib import Path

import equinox as eqx
import numpy as np
import pytest

import ide_transformer as ide
from ide_transformer.pretrained import families, load_pretrained
from tests.conformance.families import check_family
from tests.golden.cases import CASES, IN_FLOAT32, inputs_of
from tests.golden.copies import make_archive
from tests.helpers import GOLDEN, ROOT, fast_first, largest


TOKENS = np.array([1, 5, 2, 9, 0])
FAMILIES = [name for name in CASES if "," not in name]


def outputs_for(inputs):
    """The outputs of `golden.make`, by a model of this package."""

    @eqx.filter_jit
    def compiled(model):
        if isinstance(model.inputs, ide.contrib.EncodedInputs):
            states = model.inputs.encoder(inputs["features"])
            text = ide.contrib.SourceAndText(ide.models.Encoded(states), inputs["tokens"])
            return dict(states=states, logits=model(text))
        if isinstance(model.inputs, ide.models.AbstractImageInputs):
            found = dict(logits=model(inputs["images"]))
            if getattr(model.read_out, "pooler", None) is not None:
                found["pooled"] = model.read_out.pooled(found["logits"])
            return found
        kinds = getattr(model.inputs, "segments", None)
        segments = inputs.get("segments") if kinds is not None and len(kinds) > 1 else None
        text = ide.Text(inputs["tokens"], inputs["mask"], segments)
        if isinstance(model.read_out, ide.models.TokenLogits):
            u1, normalization = model.solve(text).u1, model.read_out.normalization
            return dict(states=normalization.project(u1), logits=model.outputs(u1))
        found = dict(states=model(text))
        if model.read_out.head is not None:
            found["logits"] = model.read_out.logits(found["states"], model.inputs)
        if model.read_out.pooler is not None:
            found["pooled"] = model.read_out.pooled(found["states"])
        return found

    return lambda model: without_padding(compiled(model), inputs)


def without_padding(found, inputs):
    mask = inputs.get("mask", ...)
    return {name: x if name == "pooled" else x[mask] for name, x in found.items()}


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


# The last of them are large programs.
@pytest.mark.parametrize("family", fast_first(9, [*OF_THEIR_OWN, *LIKE_OTHERS]))
def test_a_golden_checkpoint(family, unchecked):
    inputs, outputs = stored(family)
    expected = without_padding(outputs, inputs)
    check_family(
        GOLDEN / family,
        outputs_for(inputs),
        expected,
        tolerance=tolerance(family),
        single=1e-5 if family == "deit" else None,
        every=3,
    )


def test_an_archive(tmp_path):
    make_archive(tmp_path / "model.npz", vocabulary=11)
    outputs = eqx.filter_jit(lambda model: model(np.arange(5)))
    expected = np.asarray(outputs(load_pretrained(tmp_path / "model.npz")))
    check_family(tmp_path / "model.npz", outputs, expected)


@pytest.mark.parametrize("family", fast_first(2, ["vit", "dinov2", "cvt"]))
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
def test_the_library_agrees_or_an_option_is_refused(name, tmp_path, thorough):
    pytest.importorskip("transformers").utils.logging.disable_progress_bar()
    from tests.golden import make

    # Threads cost more than such a small model.
    make.torch.set_num_threads(1)
    make.write(name, tmp_path)
    inputs = inputs_of(name)

    def theirs(at):
        return without_padding(make.outputs_of(make.read(name, at), inputs), inputs)

    check_family(
        tmp_path,
        outputs_for(inputs),
        theirs,
        tolerance=tolerance(name),
        single=2e-5 if name in OF_THEIR_OWN else None,
        options=CASES[name].only.split(),
        every=1 if thorough else 24 if name in LIKE_OTHERS else 8,
    )


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    """The names of the page on your own family, whose blocks have run."""
    page = (ROOT / "docs/how-to/own-family.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", page, flags=re.S)
    names = {"__name__": "page"}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("own"))
        for block in blocks[:2]:
            exec(block, names)
        names["folder"] = Path(names["folder"]).resolve()
    outputs = eqx.filter_jit(lambda model: model(TOKENS))
    return names, outputs, lambda at: names["original"](at, TOKENS)


def conforms(own, monkeypatch, *, stored=True, outputs=None, options=(), every=1, **fields):
    """Checks the family of the page with other fields."""
    names, own_outputs, reference = own
    monkeypatch.setitem(families(), "tiny", names["FAMILIES"]["tiny"]._replace(**fields))
    expected = reference(names["folder"]) if stored else reference
    options = dict(tolerance=1e-9, options=options, every=every)
    check_family(names["folder"], outputs or own_outputs, expected, **options)


@pytest.mark.heavy
def test_a_family_of_ones_own(own, monkeypatch, unchecked):
    conforms(own, monkeypatch, stored=False, every=6)


def shifted(names):
    """Normalisation hides the shift, which costs digits."""

    def table(model):
        for place in names["table"](model):
            yield place._replace(shift=300.0) if "embed" in place.name else place

    return dict(places=table)


def other_eps(names):
    def build(*given):
        norm = ide.LayerNorm(eps=1e-2)
        return eqx.tree_at(lambda m: m.read_out.normalization, names["build"](*given), norm)

    return dict(build=build)


def without_activation(names):
    def build(options, tensors):
        values = {name: x for name, x in options.values.items() if name != "activation"}
        return names["build"](replace(options, values=values), tensors)

    return dict(build=build, stored=False, options=("activation",))


BROKEN = {
    "outputs: in float64": other_eps,
    "written back: .* differs by": shifted,
    "every tensor: one that is unknown, a_tensor.of_tomorrow, is": lambda names: dict(
        unread=".*tomorrow"
    ),
    "copies: one that differs, head.weight, is": lambda names: dict(
        ignored="head.*", copies={"head.weight": "embed.weight"}
    ),
    "dtype: .* is float64": lambda names: dict(
        outputs=lambda model: model(TOKENS).astype(float)
    ),
    "options: .*activation = 'tanh': outputs differ": without_activation,
}


@pytest.mark.parametrize("fault", BROKEN)
def test_a_fault_is_found(own, fault, monkeypatch):
    with pytest.raises(AssertionError, match=f"(?s)^{fault}"):
        conforms(own, monkeypatch, **BROKEN[fault](own[0]))
