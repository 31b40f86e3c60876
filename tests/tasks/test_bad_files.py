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
    compound,
    constant_well,
    cut,
    damaged,
    dangling,
    encrypted,
    file_of,
    folder_of,
    folder_with_a_folder,
    h5py,
    hdf5,
    header,
    hidden_pickle,
    huge,
    huge_chunk,
    in_a_circle,
    larger,
    linked,
    members,
    metadata,
    netcdf,
    no_metadata,
    no_names,
    npz,
    of_a_sheet,
    packed,
    packed_otherwise,
    part_outside,
    parts,
    pdebench,
    pickled,
    pipe,
    renamed,
    samples,
    stored_outside,
    table,
    text,
    twice,
    two_wells,
    virtual,
    well,
    zarr,
)


WHICH = r"give an \.npz file, a folder of \.npy files, a \.parquet or \.csv table, or fields"
NAN = VALUES.copy()
NAN[3, 4] = NAN[5, 6] = np.nan
ROWS = ["a,b,targets", "1.5,2,0", "2.5,3,1"]
EMPTY = np.zeros((0, 24))
NODES = {"x": ("node", np.zeros(24)), "y": ("node", np.zeros(24))}
X = {"x_coordinate": np.arange(4.0)}
FILES = {
    # What makes the file, what is said, and options.
    "encrypted": (changed(encrypted), f"is encrypted, .*{WHICH}"),
    "compression": (changed(packed_otherwise), f"compression method .*{WHICH}"),
    "damaged": (changed(damaged), f"damaged, .*{WHICH}"),
    "more in the index": (changed(larger), r"inputs \[20, 24\] needs 3968 bytes and has 2147"),
    "cut archive": (cut(arrays()), f"damaged, .*{WHICH}"),
    "no zip": (file_of("a.npz"), f"damaged, .*not a zip file.*{WHICH}"),
    "no bytes": (file_of("a.npz", b""), "a.npz: it is empty"),
    "no text": (file_of("a.csv", b""), "a.csv: it is empty"),
    "no header": (header("(3,"), f"damaged, .*{WHICH}"),
    "long header": (header("(3,)", version=2, spaces=2**23), f"damaged, .*{WHICH}"),
    "nested header": (header("(" * 5000 + ")" * 5000), f"damaged, .*{WHICH}"),
    "version": (header("(3,)", version=9), "inputs has version .9, 0. of the format"),
    "numbers missing": (header("(20, 24)"), r"inputs \[20, 24\] needs 39\d\d bytes and has"),
    "negative": (header("(20, -24)"), f"damaged, .*{WHICH}"),
    "overflowing": (header("(4294967296, 4294967296)"), "needs 147573952589676413016 bytes"),
    "packed": (packed, "of memory, and there are .*IDE_TRANSFORMER_MEMORY"),
    "objects": (arrays(inputs=np.array([{}])), "inputs holds Python objects, which could run"),
    "objects in records": (
        arrays(inputs=np.zeros(3, [("a", object)])),
        "inputs holds Python objects, which could run",
    ),
    "pickle": (pickled, "inputs holds Python objects, which could run"),
    "out of the archive": (members("../x.npy"), r"\.\./x.npy leads out of the archive"),
    "absolute": (members("/etc/x.npy"), "/etc/x.npy leads out of the archive"),
    "twice": (twice, "it has two arrays inputs"),
    "sheet": (of_a_sheet, f"no arrays that can be read; {WHICH}"),
    "pipe": (pipe, f"is no file; {WHICH}"),
    "circle": (in_a_circle, "a.npz"),
    "missing": (lambda x: x / "a.npz", "there is no such file or folder"),
    "unknown": (file_of("a.txt"), f"no arrays that can be read; {WHICH}.*np.savez"),
    "one array": (lambda x: folder_of()(x) / "inputs.npy", "no array targets, only inputs"),
    "folder": (lambda x: x, f"no arrays that can be read; {WHICH}"),
    "link": (folder_of(targets="../outside.npy"), "targets.npy is a link out of it"),
    "broken link": (folder_of(targets="inputs.txt"), "targets.npy is no file"),
    "folder for a file": (folder_with_a_folder, "inputs.npy is no file"),
    "cut array": (
        cut(lambda x: folder_of()(x) / "inputs.npy"),
        "needs 3968 bytes and has 1984",
    ),
    "two of a part": (
        parts("train", "valid", "validation"),
        "valid.npz and validation.npz are",
    ),
    "part outside": (part_outside, "test.npz is a link out of it"),
    "wrong suffix": (renamed(arrays(), "a.h5"), "it is no .h5 file; name it a.npz"),
    "array for a table": (renamed(table(x=[1]), "a.csv"), "no .csv file; name it a.parquet"),
    "file for a store": (renamed(arrays(), "a.zarr"), "a Zarr store is a folder"),
    # Values and shapes.
    "nan": (arrays(inputs=NAN), r"inputs should be finite; 2 are not, the first at \[3, 4\]"),
    "infinite": (
        arrays(targets=VALUES * np.inf),
        r"targets should be finite; 480 are not, the first at ",
    ),
    "too large": (
        arrays(inputs=VALUES * 1e300),
        r"inputs: the number at .* which float32 cannot hold",
    ),
    "complex": (arrays(inputs=VALUES + 1j), r"inputs are complex128\[20, 24\]; give real"),
    "other shape": (arrays(targets=VALUES[:, None]), "do not fit; give functions as real"),
    "other samples": (arrays(targets=VALUES[:3]), "inputs have 20 samples, and targets 3"),
    "no samples": (arrays(inputs=EMPTY, targets=EMPTY), "0 samples leave"),
    "no points": (arrays(inputs=EMPTY.T, targets=EMPTY.T), r"inputs are float64\[24, 0\]"),
    "points that meet": (arrays(points=np.zeros(24)), "from_points: .* is there twice"),
    "points outside": (arrays(points=np.arange(24.0)), r"reach from 0 to 23; scale each axis"),
    "no such array": (
        arrays(),
        "no array input, only .*Did you mean inputs",
        {"inputs": "input"},
    ),
    "dimensions": (arrays(), "dimensions=.'x'.: .*names no dimensions", {"dimensions": ["x"]}),
    "channels": (
        arrays(u=VALUES[:, :3]),
        "channels need arrays of one shape, not inputs 480 .*u 60",
        {"inputs": ["inputs", "u"]},
    ),
    # Tables.
    "lists": (table(**LISTS), "lists of the column targets are not all of one length"),
    "structs": (table(inputs=[{"a": 1}], targets=[1.0]), r"inputs are object\[1\]; give real"),
    "texts": (table(inputs=["a", "b"], targets=[1, 2]), r"inputs are <U1\[2\]; give real"),
    "cut table": (cut(table(**PAIR | {x: VALUES[0] for x in PAIR})), f"damaged, .*{WHICH}"),
    "no rows": (text(ROWS[0]), "no rows below the names"),
    "no names": (text(",,", *ROWS), "first line has no names"),
    "a name missing": (text("a,,targets", *ROWS[1:]), "column 2 of its first line has no name"),
    "a name twice": (text("a,a,targets", *ROWS[1:]), "column 2 .* has the name a again"),
    "numbers for names": (text(*ROWS[1:]), "first line has numbers; write the names"),
    "cells missing": (text(*ROWS, "", "4"), "line 5 has 1 cells, not 3"),
    "mixed": (text(*ROWS, "x,1,1"), "column a has numbers and x in line 4; correct it"),
    "no column of numbers": (
        text("a,targets", "x,0", "y,1"),
        "no array inputs, only a, targets",
    ),
    "no targets": (text("a,b", "1,2"), "no array targets, only a, b, inputs"),
    "missing cells": (
        text(*ROWS, "na,1,1"),
        r"inputs should be finite; 1 are not, the first at \[2, 0\]",
    ),
    "not UTF-8": (file_of("a.csv", b"a,targets\n\xff,1\n"), "damaged, .*utf-8"),
    "UTF-16": (file_of("a.csv", "a,targets\n1,1\n".encode("utf-16")), "damaged, .*utf-8"),
    "open quote": (text(*ROWS, '"1,2,3'), "damaged, .*unexpected end of data"),
    "long cell": (text(*ROWS, f"{'1' * 2**18},2,3"), "damaged, .*field larger than"),
    "wide texts": (
        text("a,targets", f"1,{'x' * 2**16}", *["2,y"] * 1000),
        "a.csv needs at least .*IDE_TRANSFORMER_MEMORY",
    ),
    "other labels": (
        text("a,targets", "1.5,cat", "2,cow"),
        "'cow' is none of the labels",
        {"labels": ["cat", "dog"]},
    ),
    # Fields.
    "cut netCDF": (cut(netcdf(), 0.1), f"damaged, .*{WHICH}"),
    "other dimension": (
        netcdf(),
        "dimensions .'sample', 'node'.; name each",
        {"dimensions": ["sample", "x"]},
    ),
    "no such dimension": (
        netcdf(),
        "dimensions .'sample', 'node'.; name each",
        {"dimensions": ["sample", "node", "x"]},
    ),
    "nodes that meet": (netcdf(**NODES), "from_points: .* is there twice"),
    "no codec": (zarr(metadata(filters=[{"id": "pickle"}])), f"damaged, .*{WHICH}"),
    "unknown codec": (zarr(metadata(compressor={"id": "own"})), f"damaged, .*{WHICH}"),
    "other codec": (
        zarr(metadata(compressor={"id": "base64"})),
        "has the codec base64, which may do more",
    ),
    "hidden codec": (zarr(hidden_pickle, 3), "attributes has the codec pickle"),
    "huge store": (zarr(metadata(shape=[10**6, 10**6])), "needs at least .*TRANSFORMER_MEMORY"),
    "huge chunks": (zarr(metadata(chunks=[10**6, 10**6])), "needs at least .*FORMER_MEMORY"),
    "no metadata": (zarr(no_metadata), f"damaged, .*{WHICH}"),
    "broken chunk": (zarr(chunk(b"broken")), f"damaged, .*{WHICH}"),
    "empty chunk": (zarr(chunk(b"")), f"damaged, .*{WHICH}"),
    "chunk outside": (zarr(chunk_outside), "0.0 is a link out of it"),
    "no names of axes": (zarr(no_names), f"damaged, .*{WHICH}"),
}
HDF5 = {
    "fields for an archive": (renamed(hdf5(), "a.npz"), "it is no .npz file; name it a.nc"),
    "cut HDF5": (cut(hdf5()), f"damaged, .*truncated.*{WHICH}"),
    "broken HDF5": (file_of("a.h5", b"\x89HDF\r\n\x1a\n" + bytes(999)), f"damaged, .*{WHICH}"),
    "no HDF5": (file_of("a.hdf5"), f"damaged, .*{WHICH}"),
    "external link": (hdf5(linked), "inputs lies in another file; copy it"),
    "external storage": (hdf5(stored_outside), "inputs lies in another file; copy it"),
    "virtual": (hdf5(virtual), "inputs lies in another file; copy it"),
    "huge": (hdf5(huge), "a.h5 needs at least .*IDE_TRANSFORMER_MEMORY"),
    "huge chunk": (hdf5(huge_chunk), "a.h5 needs at least .*IDE_TRANSFORMER_MEMORY"),
    "compound": (hdf5(compound), r"inputs are .*\[20\]; give real"),
    "dangling": (hdf5(dangling), f"damaged, .*{WHICH}"),
    "words": (hdf5(inputs=["a"] * 20), r"inputs are <U1\[20\]; give real numbers"),
    "nan in HDF5": (
        hdf5(inputs=NAN),
        r"inputs should be finite; 2 are not, the first at \[3, 4\]",
    ),
    "no netCDF": (file_of("a.nc"), f"damaged, .*{WHICH}"),
    "more trajectories": (
        well(trajectories=3),
        r"t0_fields/u is \[2, 3, 4\], where .*\[3, 3, 4\]",
    ),
    "more points": (well(x=np.arange(5.0)), r"t0_fields/u is \[2, 3, 4\], where .*\[2, 3, 5\]"),
    "own points": (well(x=np.ones((2, 4))), "coordinates differ between samples"),
    "texts for points": (well(x=["a"] * 4), "/dimensions/x is object"),
    "nothing moves": (constant_well, "no field that varies with time"),
    "many trajectories": (well(trajectories=10**9), "t0_fields/u is"),
    "other fields": (two_wells(field="v"), "it has the fields .*v.*, and a.h5 has .*u"),
    "other points": (
        two_wells(x=np.arange(4) ** 2.0),
        r"has \[.*\] times and points, and a.h5 has",
    ),
    "other layout": (
        lambda x: two_wells()(hdf5()(x).rename(x / "c.h5").parent),
        "its HDF5 files have not the layout of The Well",
    ),
    "fewer points": (pdebench(tensor=np.ones((2, 3, 5)), **X), r"tensor is \[2, 3, 5\], where"),
    "fewer times": (
        pdebench(tensor=np.ones((2, 3, 4)), t_coordinate=np.ones(2), **X),
        r"t-coordinate has 2 times for 3 states",
    ),
    "unequal samples": (samples((3, 4, 1), (2, 4, 1)), r"0001/data is \[2, 4, 1\], and 0000"),
    "unequal points": (samples((3, 5, 1)), r"0000/data is \[3, 5, 1\], where .*\[3, 4, "),
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
