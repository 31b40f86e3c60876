import subprocess
import sys

from helpers import ROOT


PROGRAM = """
import importlib, pkgutil
import ide_transformer

for module in pkgutil.walk_packages(ide_transformer.__path__, "ide_transformer."):
    importlib.import_module(module.name)
from jax._src import xla_bridge

print(len(xla_bridge._backends), "backends")
"""


def test_no_module_computes_when_it_is_imported():
    """A backend would be made, and `jax.distributed.initialize` has to come before that."""
    command = [sys.executable, "-c", PROGRAM]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "0 backends"
