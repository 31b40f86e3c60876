"""Wrong files of runs and comparisons: the message begins with the line and the key, and names
what is accepted or the nearest name. Nothing was read, fetched, compiled or written."""

import json
import re
import socket
import time

import jsonschema
import pytest

from ide_transformer.compare import MODES
from ide_transformer.tasks import AbstractTask
from ide_transformer.training import Config
from ide_transformer.training.configuration.schema import schema_of
from ide_transformer.training.configuration.text import read_file
from ide_transformer.training.steps.phases import Phase
from tests.helpers import ROOT
from tests.running import run_here


# The second line of a file, without the keys that are right | what is said of it.
RUNS = """\
modle: {width: 8} | modle={'width': 8}: unknown key. Did you mean model?
model: {layer: 3} | model.layer=3: unknown key. Did you mean layers? … options, … pretrained
model: {width: '8'} | model.width='8': expected a valid integer
model: {width: 0} | model.width=0: expected greater than 0
model: {width: 8, width: 9} | model.width is set twice, first in line 2
model: {optimizer: {clip: 1.0}} | model.optimizer={'clip': 1.0}: unknown key
model: {kind: language_modle} | model.kind=language_modle: unknown. Did you mean language_model?
model: {kind: image_classifier} | model.kind=image_classifier: data.name=shakespeare needs
model: {heads: 3} | model.operators.0: Attention: heads=3 must divide features=128
model: {operators: [atention]} | model.operators.0=atention: unknown. Did you mean attention?
model: {operators: [{kind: attention, options: {windw: 3}}]}
    | model.operators.0.options.windw=3: attention has no such option. Did you mean window?
model: {operators: [{kind: attention, options: {window: -1}}]}
    | model.operators.0.options.window=-1: expected greater than 0
model: {operators: []} | model.operators=[]: expected at least one
model: {activation: glu} | model.activation=glu: unknown. Did you mean gelu?
model: {positions: rotory} | model.positions=rotory: unknown. Did you mean rotary?
model: {normalization: {kind: layer_norm, options: {epsilon: 1}}}
    | model.normalization.options.epsilon=1: layer_norm has no such option. Did you mean eps?
model: {basis: cosin} | model.basis=cosin: unknown. Did you mean cosine?
model: {kind: image_stage, stages: [{strid: 2}]} | model.stages.0.strid=2: … mean stride?
model: {lora: {rank: 0}} | model.lora.rank=0: expected greater than 0
model: {options: {windw: 3}} | model.options.windw=3: language_model has no such option
solver: stragn | solver.kind=stragn: unknown. Did you mean strang?
solver: strang(huen) | solver.options.sub_solver=huen: unknown. Did you mean heun?
solver: {steps: 0} | solver.steps=0: expected greater than 0
solver: {rtol: 1.0e-3} | solver.rtol=0.001: set atol too
solver: adams_bashforth(9) | solver.options.steps=9: expected 2 or 3
control: {kind: chebishev} | control.kind=chebishev: unknown. Did you mean chebyshev?
control: {kind: chebyshev, options: {term: 3}} | control.options.term=3: … Did you mean terms?
control: {kind: chebyshev, options: {terms: 0}} | control.options.terms=0: … greater than 0
data: {name: shakespear} | data.name=shakespear: unknown. Did you mean shakespeare?
data: {name: p_hop, options: {alphabt: 4}} | data.options.alphabt=4: … mean alphabet?
data: {path: here.txt} | data.path='here.txt': shakespeare has no such option
data: {validation: 1.5} | data.validation=1.5: expected less than 1
optimizer: {learning_rat: 1.0e-3} | optimizer.learning_rat=0.001: … mean learning_rate?
optimizer: {kind: adamm} | optimizer.kind='adamm': expected 'adamw', 'lion' or 'muon'
optimizer: {groups: {control.blocks.0.valeu: 2.0}}
    | optimizer.groups: 'control.blocks.0.valeu' fits no weight. … control.blocks.0.value
training: {width: 8} | training.width=8: unknown key
training: {batch_size: 8, accumulate: 3} | training.accumulate=3: it must divide batch_size=8
training: {schedule: [{untill: 50%}]} | training.schedule.0.untill='50%': … mean until?
training: {schedule: [{mesh: {layer: 1}}]} | training.schedule.0.mesh.layer=1: … mean layers?
training: {schedule: [{until: 50%, mesh: {layers: 3}}]} | 3 layers cannot become 4; use 1, 2
training: {growth: stakced} | training.growth=stakced: unknown. Did you mean stacked?
training: {costs: {transprot: 0.01}} | training.costs.transprot.kind=transprot: … transport?
training: {costs: {transport: -1}} | training.costs.transport.weight=-1: … greater than or equal
training: {gradient: recomput} | training.gradient=recomput: unknown. Did you mean recompute?
training: {trackers: [tensorbord]} | training.trackers.0=tensorbord: … mean tensorboard?
parallel: {dta: 2} | parallel.dta=2: unknown key. Did you mean data?
"""
COMPARISONS = """\
schemes: {one: {solver: stragn}} | schemes.one.solver.kind=stragn: … Did you mean strang?
schemes: {one: {model: {layer: 2}}} | schemes.one.model.layer=2: … Did you mean layers?
schemes: {one: {modle: {}}} | schemes.one.modle={}: unknown key. Did you mean model?
schemes: {one: {model: {heads: 3}}} | schemes.one.model.operators.0: Attention: heads=3
schemes: {one: {training: {seed: 3}}} | schemes.one.training.seed: … set seeds instead
recipes: {two: {training: {costs: {transprot: 1}}}}
    | recipes.two.training.costs.transprot.kind=transprot: … Did you mean transport?
reference: oen | reference='oen' must be one of one. Did you mean one?
seeds: [0, 0] | seeds=[0, 0] must be different
sweep: {keys: {optimizer.learning_rat: [1.0, 2.0]}}
    | sweep.keys.optimizer.learning_rat=1.0: unknown key. Did you mean learning_rate?
sweep: {keys: {optimizer.clip: [2.0, 1.0]}} | sweep.keys.optimizer.clip=[2.0, 1.0]: values must
tests: {far: {mesh: {layer: 2}}} | tests.far.mesh.layer=2: a mesh has no such option. … layers
tests: {far: {options: {alphabt: 2}}} | tests.far.options.alphabt=2: … Did you mean alphabet?
tests: {far: {schemes: [two]}} | tests.far.schemes=['two']: use some of one
base: bsae.yaml | base=bsae.yaml: there is no such file
budget: {unit: step, amount: 8} | budget.unit='step': expected 'field_evaluations', …
mode: trian | mode='trian': unknown. Did you mean train?
"""
# What a schema does not see: other keys, duplicates, layers that cannot grow, other files.
UNSEEN = (
    *("set twice", "heads=3", "set atol too", "options.steps=9", "fits no weight"),
    *("must divide", "be different", "cannot become", "must be one of", "use some of"),
    *("seeds instead", "no such file", "sweep.keys", "tests.far.options", "layer=2: a mesh"),
    # The base may have another kind.
    *("model.options.windw", "data.path", "shakespeare needs"),
)
BASE = "data: {name: p_hop}\nmodel: {context: 16}\n"


def rows_of(text):
    return [row.split(" | ") for row in re.sub(r"\n +", " ", text).splitlines()]


def text_of_comparison(line):
    """The line comes second; the keys that it does not set follow."""
    keys = {
        "mode": "train",
        "base": "base.yaml",
        "budget": "{amount: 8}",
        "schemes": "{one: {}}",
    }
    name = line.partition(":")[0]
    return "\n".join(["# wrong", line, *(f"{x}: {y}" for x, y in keys.items() if x != name)])


WRONG = [("train", f"# wrong\n{line}", expected) for line, expected in rows_of(RUNS)]
WRONG += [
    ("compare", text_of_comparison(line), expected) for line, expected in rows_of(COMPARISONS)
]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with a base, in which data, programs and the network are out of reach."""

    def reach(*_, **__):
        raise AssertionError("it was read, fetched or compiled")

    for kind in AbstractTask.__subclasses__():
        monkeypatch.setattr(kind, "__init__", reach)
    monkeypatch.setattr(Phase, "lower", reach)
    monkeypatch.setattr(socket.socket, "connect", reach)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "base.yaml").write_text(BASE)
    return tmp_path


@pytest.mark.parametrize(("command", "text", "expected"), WRONG, ids=lambda x: x[:60])
def test_a_wrong_file_is_refused_when_it_is_read(command, text, expected, folder, capsys):
    (folder / "wrong.yaml").write_text(text)
    began = time.process_time()
    output = run_here(capsys, command, "wrong.yaml", expected=2)
    assert time.process_time() - began < 2
    message = output.split("error: ", 1)[1]
    parts = (re.escape(" ".join(part.split())) for part in expected.split("…"))
    assert re.match(rf"wrong.yaml:2: .*{'.*'.join(parts)}", message, re.S), output
    assert {path.name for path in folder.iterdir()} == {"base.yaml", "wrong.yaml"}


@pytest.fixture(scope="module")
def validators():
    """A validator of the schema that each command prints."""
    schemas = {"train": schema_of(Config), "compare": schema_of(*MODES.values())}
    for schema in schemas.values():
        jsonschema.Draft7Validator.check_schema(schema)
    return {name: jsonschema.Draft7Validator(x) for name, x in schemas.items()}


def test_the_schema_accepts_each_configuration_of_the_package(validators):
    for path in (ROOT / "configs").rglob("*.yaml"):
        tree, _ = read_file(path)
        errors = validators["compare" if "mode" in tree else "train"].iter_errors(tree)
        assert not [error.message for error in errors], path


def test_the_schema_refuses_wrong_files(validators, tmp_path):
    refused = 0
    for command, text, expected in WRONG:
        if any(words in expected for words in UNSEEN):
            continue
        (tmp_path / "wrong.yaml").write_text(text)
        tree, _ = read_file(tmp_path / "wrong.yaml")
        assert not validators[command].is_valid(tree), text
        refused += 1
    assert refused >= 40


def test_a_command_prints_the_schema(capsys):
    for kind, name in (("run", "Config"), ("compare", "TrainingComparison")):
        schema = json.loads(run_here(capsys, "schema", kind))
        assert schema["definitions"][name]["properties"]["name"]["type"] == "string"
