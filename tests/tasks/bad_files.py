"""Writes files that cannot be read as arrays, for test_array_files."""

import json
import os

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import xarray


try:
    import h5py
except ImportError:
    h5py = None

RANDOM = np.random.default_rng(0)
VALUES = RANDOM.normal(size=(20, 24))
PAIR = dict(inputs=VALUES, targets=VALUES)


# Archives of NumPy.


def npz(folder, **arrays):
    np.savez(folder / "a.npz", **arrays)
    return folder / "a.npz"


def arrays(**changes):
    return lambda folder: npz(folder, **PAIR | changes)


# Folders.


def pickled(folder):
    np.save(folder / "inputs.npy", np.array([Trap()], object), allow_pickle=True)
    np.save(folder / "targets.npy", VALUES)
    return folder


class Trap:
    """Unpickled, it leaves a mark."""

    def __reduce__(self):
        return os.mkdir, ("executed",)


def file_of(name, content=b"x,y\n1.0,2.0\n"):
    def write(folder):
        (folder / name).write_bytes(content)
        return folder / name

    return write


def cut(write):
    """The first half of a file."""

    def shortened(folder):
        path = write(folder)
        content = path.read_bytes()
        path.write_bytes(content[: len(content) // 2])
        return path

    return shortened


# Tables.


def unequal_lists(folder):
    columns = {"inputs": VALUES.tolist(), "targets": [[1.0], *VALUES[1:].tolist()]}
    pq.write_table(pa.table(columns), folder / "a.parquet")
    return folder / "a.parquet"


def text(*lines):
    return file_of("a.csv", "\n".join(lines).encode())


# Fields.


def hdf5(change=None):
    def write(folder):
        with h5py.File(folder / "a.h5", "w") as file:
            for name, x in PAIR.items():
                file[name] = x
            if change is not None:
                del file["inputs"]
                change(file, folder)
        return folder / "a.h5"

    return write


def linked(file, folder):
    with h5py.File(folder / "other.h5", "w") as other:
        other["inputs"] = VALUES
    file["inputs"] = h5py.ExternalLink("other.h5", "inputs")


def huge_chunk(file, folder):
    file.create_dataset("inputs", (1, 24), "f4", maxshape=(None, 24), chunks=(2**20, 24))


def zarr(change=None, version=2):
    def write(folder):
        data = xarray.Dataset({name: (("sample", "x"), x) for name, x in PAIR.items()})
        data.to_zarr(folder / "a.zarr", zarr_format=version, consolidated=version == 3)
        if change is not None:
            change(folder / "a.zarr")
        return folder / "a.zarr"

    return write


def metadata(**changes):
    def change(store):
        for path in store.glob("*/.zarray"):
            path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return change


def hidden_pickle(store):
    """An array of version 2, in the consolidated metadata of a group of version 3 alone."""
    content = json.loads((store / "zarr.json").read_text())
    array = {
        **{"zarr_format": 2, "node_type": "array", "shape": [1], "chunks": [1], "dtype": "|O"},
        **{"order": "C", "fill_value": None, "compressor": None, "dimension_separator": "."},
        "filters": [{"id": "vlen-utf8"}, {"id": "pickle"}],
        "attributes": {"_ARRAY_DIMENSIONS": ["x"]},
    }
    content["consolidated_metadata"]["metadata"]["attributes"] = array
    (store / "zarr.json").write_text(json.dumps(content))
