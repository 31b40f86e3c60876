"""Wrong configurations: one message that names the key, exit status 2, and nothing written."""

import dataclasses
import inspect
import re
import resource
import time

import pytest
import yaml

from ide_transformer import training
from ide_transformer.training.configuration.section import Section
from tests.running import run_here
from tests.training import stub


# Texts that are no configurations, by what is said of them.
WRONG_TEXTS = {
    "0": "expected sections",
    "model: {width: 8}\n---\nmodel: {}": "found another document",
    "model:\n  width: 8\nmodel:\n  layers: 2": "wrong.yaml:3: model is set twice",
    "model: !!python/object/apply:os.system [ls]": "wrong.yaml:1: could not determine",
    "name: nul": "name='nul'",
    "model: {pretrained: x}\nsolver: {steps: 2}": "solver.kind is missing",
    "a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]": "wrong.yaml:1: anchors",
    'model: {kind: "\\ud800"}': "",
}

# Overrides of a tiny run | what is said of them, over several lines; … stands for any text.
REFUSED = """\
version=1 | version=1: this release … reads version 3; train again
solver.kind=strang(heun | solver.kind=strang(heun: it is not a scheme; use … strang(heun)
solver.kind=diffrax:ItoMilstein | ItoMilstein is not for configurations
model.pretrained=x; model.width=128; model.heads=4; control=tied | drop … model.layers
model.kind=image_classifier | data.name=stub needs … TokenLogits; … kind=language_model
model.options={solver: strang} | solver has no effect; use `solver:`
model.basis=cosine; model.modes=3; model.hidden=5 | model.hidden=5: times modes=3
data={name: text, path: TEXT}; model.operators=[tests.training.mine:Ahead]
    | data.name=text: operator 0, Ahead, sees later tokens
data={name: text, path: TEXT}; model={width: 16, context: 4000} | longer than the
optimizer.momentum=0.95 | optimizer.momentum=0.95: it needs kind=muon
training.costs.smoothness=0.1; control=tied | Smoothness: weights of Tied are constant; remove
training.schedule=[{until: 40%, mesh: {layers: 1}}, {until: 0.5}]
    | training.schedule.1.until=0.5
training.schedule=[{until: 2, mesh: {layers: 1}}, {mesh: {layers: 4}}]
    | layers [1, 4] must not decrease, and end with model.layers=2
training.schedule=[{meshes: [{width: 9}]}]
    | training.schedule.0.meshes.0={width: 9}: … a multiple of 4
training.schedule=[{meshes: [{layers: 2}, {horizon: 0.5}]}]; control=tied
    | meshes.1={horizon: 0.5}: … interval length 1
model.operators=[nowhere:Pull] | model.operators.0=nowhere:Pull: … named 'nowhere'. Start the
solver=tests.training.mine:Pull | solver.kind=tests.training.mine:Pull: Pull is not a subclass
model.operators=[tests.training.mine:Twice]
    | model.operators.0.options.operator is missing; tests.training.mine:Twice needs it
"""

# Each of these took gigabytes, minutes, or the whole process.
EXPLODING = {
    "model: " + "[" * 10_000: "levels inside each other",
    f"solver: {'strang(' * 3_000}euler{')' * 3_000}": "levels inside each other",
    "# a comment\n" * 100_000: "characters",
    "training: {schedule: [{until: '10**10**10%'}]}": "training.schedule.0.until",
    "optimizer: {groups: {'" + "*a" * 50_000 + "': 1.0}}": "wrong.yaml:2",
    f"training: {{steps: {'9' * 2**17}}}": "",
    "model: {width: 1000000000}": "model.width=1000000000",
    "training: {batch_size: 1000000000}": "training.batch_size=1000000000",
    "solver: {steps: 1000000000}": "solver.steps=1000000000",
    "control: {kind: hypernetwork, options: {terms: 1000000000}}": "control.options.terms",
    "model: {operators: [{kind: attention, options: {window: 10000000000}}]}": "options.window",
}


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    folder = tmp_path_factory.mktemp("base")
    (folder / "text.txt").write_text("the quick brown fox jumps over the lazy dog. " * 40)
    (folder / "base.yaml").write_text(yaml.safe_dump(stub.tree()))
    return folder


@pytest.fixture
def refused(base, capsys):
    """`train` with this text or override; it has to say this."""

    def check(expected, *overrides, text=None):
        path = base / "base.yaml"
        if text is not None:
            path = base / "wrong.yaml"
            path.write_text(text)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        began = time.process_time()
        arguments = (*overrides, "--runs", base / "runs")
        output = run_here(capsys, "train", path, *arguments, expected=2)
        assert time.process_time() - began < 10
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 2**20
        message = output.split("error: ", 1)[1]
        for override in overrides:
            message = message.replace(f"override {override!r}", "")
        parts = (re.escape(" ".join(part.split())) for part in expected.split("…"))
        assert re.search(".*".join(parts), message), output
        assert not re.match(r"([\w.]+): \1\b", message), "its place is said twice"
        assert "Traceback" not in output and len(output) < 3_000
        assert not (base / "runs").exists()

    with stub.untrained():
        yield check


def keys_of(section, prefix=""):
    for field in dataclasses.fields(section):
        yield prefix + field.name
        if inspect.isclass(field.type) and issubclass(field.type, Section):
            yield from keys_of(field.type, f"{prefix}{field.name}.")


def test_values_of_another_kind_are_refused_at_each_key(refused):
    """No key takes a number below zero, or a list with such a section."""
    with pytest.raises(AssertionError, match="it would start"):
        refused("")  # the right one
    for key in keys_of(training.Config):
        refused(key, f"{key}=-0.5")
        refused(key, f"{key}=[{{no: such}}]")


@pytest.mark.parametrize("text", WRONG_TEXTS)
def test_a_text_that_is_no_configuration_is_refused(refused, text):
    refused(WRONG_TEXTS[text], text=text)


@pytest.mark.parametrize("row", re.sub(r"\n +", " ", REFUSED).splitlines())
def test_what_is_wrong_is_said(refused, base, row):
    overrides, message = row.replace("TEXT", str(base / "text.txt")).split(" | ")
    refused(message, *overrides.strip().split("; "))


def test_what_explodes_is_refused_at_once(refused, base):
    # The sizes come from a text.
    data = f"data: {{name: text, path: {base / 'text.txt'}}}\n"
    for text, message in EXPLODING.items():
        refused(message, text=data + text if "{" in text.split("[")[0] else text)
