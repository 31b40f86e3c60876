import sys

import pytest
from running import run_apart


PROGRAM = """
import argparse, importlib, pkgutil, sys
import ide_transformer
from ide_transformer.commands.command import COMMANDS

for name in COMMANDS.keys() - {"convergence"}:  # whose help lists all schemes
    command = importlib.import_module(f"ide_transformer.commands.{name}")
    command.add_options(argparse.ArgumentParser())
print("jax" in sys.modules, "train" in dir(ide_transformer), "optax" in sys.modules)
from ide_transformer.pretrained import families

for module in pkgutil.walk_packages(ide_transformer.__path__, "ide_transformer."):
    importlib.import_module(module.name)
families()
from jax._src import xla_bridge

print(len(xla_bridge._backends), "backends")
"""


@pytest.mark.heavy
def test_no_module_computes_when_it_is_imported():
    """A backend would be made, and `jax.distributed.initialize` has to come before that. What
    trains is imported when it is asked for, and the help of a command imports nothing."""
    found = run_apart([sys.executable, "-c", PROGRAM]).stdout.split()
    assert found == ["False", "True", "False", "0", "backends"]
