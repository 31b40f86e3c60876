"""Files that cannot be read as arrays: one line for each, and nothing else happens."""

import os

import numpy as np
import pytest

import ide_transformer as ide
from ide_transformer import memory
from ide_transformer.tasks import Arrays
from ide_transformer.tasks.files import stored_arrays
from tests.tasks.bad_files import (
    LISTS,
    PAIR,
    VALUES,
    arrays,
    changed,
    chunk,
    chunk_outside,
    cut,
    file_of,
    folder_of,
    h5py,
    hdf5,
    hidden_pickle,
    huge_chunk,
    larger,
    linked,
    members,
    metadata,
    netcdf,
    npz,
    part_outside,
    pdebench,
    pickled,
    pipe,
    renamed,
    samples,
    table,
    text,
    two_wells,
    virtual,
    well,
    zarr,
)


WHICH = r"pass an \.npz file, a folder of \.npy files, a \.parquet or \.csv table, or fields"
NAN = VALUES.copy()
NAN[3, 4] = NAN[5, 6] = np.nan
ROWS = ["a,b,targets", "1.5,2,0", "2.5,3,1"]
X = {"x_coordinate": np.arange(4.0)}
FILES = {
    # What makes the file, what is said, and options.
    "more in the index": (changed(larger), r"inputs \[20, 24\] needs 3968 bytes and has 2147"),
    "cut archive": (cut(arrays()), f"damaged, .*{WHICH}"),
    "no bytes": (file_of("a.npz", b""), "a.npz: it is empty"),
    "pickle": (pickled, "inputs holds Python objects, which could run"),
    "out of the archive": (members("../x.npy"), r"\.\./x.npy leads out of the archive"),
    "pipe": (pipe, f"is not a file; {WHICH}"),
    "missing": (lambda x: x / "a.npz", "there is no such file or folder"),
    "unknown": (file_of("a.txt"), f"no arrays that can be read; {WHICH}.*np.savez"),
    "link": (folder_of(targets="../outside.npy"), "targets.npy is a link out of it"),
    "part outside": (part_outside, "test.npz is a link out of it"),
    "wrong suffix": (renamed(arrays(), "a.h5"), "it is not a .h5 file; name it a.npz"),
    # Values and shapes.
    "nan": (arrays(inputs=NAN), r"inputs should be finite; 2 are not, the first at \[3, 4\]"),
    "other shape": (arrays(targets=VALUES[:, None]), "do not fit; pass functions as real"),
    # Tables.
    "lists": (table(**LISTS), "lists of the column targets are not all of one length"),
    "cut table": (cut(table(**PAIR | {x: VALUES[0] for x in PAIR})), f"damaged, .*{WHICH}"),
    "a name twice": (text("a,a,targets", *ROWS[1:]), "column 2 .* has the name a again"),
    "numbers for names": (text(*ROWS[1:]), "first line has numbers, but must"),
    "mixed": (text(*ROWS, "x,1,1"), "column a has numbers and x in row 3; correct it"),
    "not UTF-8": (file_of("a.csv", b"a,targets\n\xff,1\n"), "damaged, .*utf-8"),
    "wide texts": (
        text("a,targets", f"1,{'x' * 2**16}", *["2,y"] * 1000),
        "a.csv needs at least .*IDE_TRANSFORMER_MEMORY",
    ),
    # Fields.
    "other dimension": (
        netcdf(),
        "dimensions .'sample', 'node'",
        {"dimensions": ["sample", "x"]},
    ),
    "other codec": (
        zarr(metadata(compressor={"id": "base64"})),
        "has the codec base64, which may do more",
    ),
    "hidden codec": (zarr(hidden_pickle, 3), "attributes has the codec pickle"),
    "huge store": (zarr(metadata(shape=[10**6, 10**6])), "needs at least .*TRANSFORMER_MEMORY"),
    "huge chunks": (zarr(metadata(chunks=[10**6, 10**6])), "needs at least .*FORMER_MEMORY"),
    "broken chunk": (zarr(chunk(b"broken")), f"damaged, .*{WHICH}"),
    "chunk outside": (zarr(chunk_outside), "0.0 is a link out of it"),
}
HDF5 = {
    "cut HDF5": (cut(hdf5()), f"damaged, .*truncated.*{WHICH}"),
    "external link": (hdf5(linked), "inputs lies in another file; copy it"),
    "virtual": (hdf5(virtual), "inputs lies in another file; copy it"),
    "huge chunk": (hdf5(huge_chunk), "a.h5 needs at least .*IDE_TRANSFORMER_MEMORY"),
    "more trajectories": (
        well(trajectories=3),
        r"t0_fields/u is \[2, 3, 4\], where .*\[3, 3, 4\]",
    ),
    "other fields": (two_wells(field="v"), "it has the fields .*v.*, and a.h5 has .*u"),
    "fewer points": (pdebench(tensor=np.ones((2, 3, 5)), **X), r"tensor is \[2, 3, 5\], where"),
    "unequal samples": (samples((3, 4, 1), (2, 4, 1)), r"0001/data is \[2, 4, 1\], and 0000"),
}


def everything(folder):
    return {x: x.lstat().st_mtime_ns for x in folder.rglob("*")}


@pytest.mark.parametrize(
    "name",
    [
        *FILES,
        *(pytest.param(x, marks=pytest.mark.skipif(h5py is None, reason="h5py")) for x in HDF5),
    ],
)
def test_a_bad_file_is_one_line(tmp_path, monkeypatch, name):
    """No file is written, none outside is read, and nobody is told to let code run."""
    write, said, *options = (FILES | HDF5)[name]
    path = write(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(memory.BOUND, "0.0625")
    before = everything(tmp_path)
    with pytest.raises(ide.InputError, match=said) as error:
        Arrays.build(path, **dict(*options))
    assert "\n" not in str(error.value) and "allow_pickle" not in str(error.value)
    assert everything(tmp_path) == before


def test_a_file_without_permission(tmp_path):
    path = npz(tmp_path, **PAIR)
    path.chmod(0)
    for folder in (tmp_path, tmp_path.parent, tmp_path.parent.parent):
        folder.chmod(0o755)
    own = os.geteuid()
    try:
        if own == 0:
            os.seteuid(65534)
        with pytest.raises(ide.InputError, match=r"cannot be read \(Permission denied"):
            stored_arrays(path)
    finally:
        os.seteuid(own)
