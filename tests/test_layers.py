import shutil
import subprocess
import sys
from pathlib import Path

from helpers import ROOT


def test_imports_point_down_through_the_layers():
    lint = Path(sys.executable).with_name("lint-imports")
    command = str(lint) if lint.exists() else shutil.which("lint-imports")
    done = subprocess.run([command], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_a_wrong_import_is_found(tmp_path):
    """The contract can fail: an import upwards breaks it."""
    shutil.copytree(ROOT / "ide_transformer", tmp_path / "ide_transformer")
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    domain = tmp_path / "ide_transformer/equation/domain.py"
    domain.write_text(domain.read_text() + "\nfrom ..solvers import LieTrotter\n")
    lint = Path(sys.executable).with_name("lint-imports")
    command = str(lint) if lint.exists() else shutil.which("lint-imports")
    done = subprocess.run(
        [command, "--no-cache"],
        cwd=tmp_path,
        env={"PYTHONPATH": str(tmp_path), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0 and "BROKEN" in done.stdout
