"""Files that cannot be read as arrays: one line for each, and nothing else happens."""

import os

import numpy as np
import pytest

import ide_transformer as ide
from ide_transformer import memory
from ide_transformer.tasks import Arrays
from ide_transformer.tasks.files import stored_arrays
from tests.tasks import bad_files as bad


WHICH = r"an \.npz file, a folder of"
NAN = bad.VALUES.copy()
NAN[3, 4] = NAN[5, 6] = np.nan
ROWS = ["a,b,targets", "1.5,2,0", "2.5,3,1"]
# What makes the file, the error, and options.
FILES = {
    "cut archive": (bad.cut(bad.arrays()), f"damaged, .*{WHICH}"),
    "no bytes": (bad.file_of("a.npz", b""), r"a\.npz: it is empty"),
    "pickle": (bad.pickled, "inputs holds Python objects, which could run"),
    "out of the archive": (bad.members("../x.npy"), r"\.\./x\.npy leads out"),
    "pipe": (bad.pipe, f"not a file; .*{WHICH}"),
    "missing": (lambda folder: folder / "a.npz", r"a\.npz: there is no such file"),
    "unknown": (bad.file_of("a.txt"), f"no arrays that can be read; .*{WHICH}"),
    "link": (bad.folder_of(targets="../outside.npy"), r"targets\.npy is a link out"),
    # Values and shapes.
    "nan": (bad.arrays(inputs=NAN), r"inputs should be finite; 2 .* at \[3, 4\]"),
    "other shape": (bad.arrays(targets=bad.VALUES[:, None]), "do not fit"),
    # Tables.
    "lists": (bad.table(**bad.LISTS), "column targets are not all of one length"),
    "a name twice": (bad.text("a,a,targets", *ROWS[1:]), "column 2 .* the name a "),
    "numbers for names": (bad.text(*ROWS[1:]), "first line has numbers"),
    "mixed": (bad.text(*ROWS, "x,1,1"), "column a has numbers and x in row 3"),
    "not UTF-8": (bad.file_of("a.csv", b"a,targets\n\xff,1\n"), "damaged, .*utf-8"),
    # Fields.
    "other dimension": (bad.netcdf(), "'sample', 'node'", {"dimensions": ["sample", "x"]}),
    "other codec": (bad.zarr(bad.metadata(compressor={"id": "base64"})), "codec base64"),
    "hidden codec": (bad.zarr(bad.hidden_pickle, 3), "attributes has the codec pickle"),
    "huge store": (bad.zarr(bad.metadata(shape=[10**6, 10**6])), memory.BOUND),
    "huge chunks": (bad.zarr(bad.metadata(chunks=[10**6, 10**6])), memory.BOUND),
    "chunk outside": (bad.zarr(bad.chunk_outside), r"0\.0 is a link out"),
}
HDF5 = {
    "cut HDF5": (bad.cut(bad.hdf5()), f"damaged, .*truncated.*{WHICH}"),
    "external link": (bad.hdf5(bad.linked), "inputs lies in another file"),
    "virtual": (bad.hdf5(bad.virtual), "inputs lies in another file"),
    "huge chunk": (bad.hdf5(bad.huge_chunk), memory.BOUND),
    "more trajectories": (bad.well(trajectories=3), r"\[2, 3, 4\].*\[3, 3, 4\]"),
    "fewer points": (
        bad.pdebench(tensor=np.ones((2, 3, 5)), x_coordinate=np.arange(4.0)),
        r"tensor is \[2, 3, 5\]",
    ),
}
NEEDS_H5PY = pytest.mark.skipif(bad.h5py is None, reason="h5py is not installed")


def everything(folder):
    return {x: x.lstat().st_mtime_ns for x in folder.rglob("*")}


@pytest.mark.parametrize("name", [*FILES, *(pytest.param(x, marks=NEEDS_H5PY) for x in HDF5)])
def test_a_bad_file_is_one_line(tmp_path, monkeypatch, name):
    """No file is written, none outside is read, and nobody is told to let code run."""
    write, message, *options = (FILES | HDF5)[name]
    path = write(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(memory.BOUND, "0.0625")
    before = everything(tmp_path)
    with pytest.raises(ide.InputError, match=message) as error:
        Arrays.build(path, **dict(*options))
    assert "\n" not in str(error.value) and "allow_pickle" not in str(error.value)
    assert everything(tmp_path) == before


def test_a_file_without_permission(tmp_path):
    path = bad.npz(tmp_path, **bad.PAIR)
    path.chmod(0)
    for folder in (tmp_path, tmp_path.parent, tmp_path.parent.parent):
        folder.chmod(0o755)
    user = os.geteuid()
    try:
        if user == 0:
            os.seteuid(65534)
        with pytest.raises(ide.InputError, match="Permission denied"):
            stored_arrays(path)
    finally:
        os.seteuid(user)
