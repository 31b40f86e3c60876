"""Files of data: those that `torch.save` writes, made without torch, and IDX files."""

import gzip
import io
import struct
import zipfile

import numpy as np


_STORAGES = {"bool": "BoolStorage", "float32": "FloatStorage", "float64": "DoubleStorage"}


def torch_file(arrays, *, kind="torch._utils _rebuild_tensor_v2", strides=None, short=0):
    """The bytes of a dictionary of tensors. `kind` is the function that makes one, `strides`
    those of all of them, and `short` the bytes that each storage has too few."""
    pickled, archive = io.BytesIO(), io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        pickled.write(b"\x80\x02}(")
        for index, (name, array) in enumerate(arrays.items()):
            pickled.write(_text(name) + _global(kind) + b"(")
            storage = _global(f"torch {_STORAGES[array.dtype.name]}")
            pickled.write(b"(" + _text("storage") + storage + _text(str(index)))
            pickled.write(_text("cpu") + _integer(array.size) + b"tQ" + _integer(0))
            steps = strides or [x // array.itemsize for x in array.strides]
            for sizes in (array.shape, steps):
                pickled.write(b"(" + b"".join(map(_integer, sizes)) + b"t")
            pickled.write(b"\x89" + _global("collections OrderedDict") + b")RtR")
            content = array.tobytes(order="A")
            file.writestr(f"archive/data/{index}", content[: len(content) - short])
        pickled.write(b"u.")
        file.writestr("archive/data.pkl", pickled.getvalue())
    return archive.getvalue()


def write_idx(path, array):
    header = bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    content = header + array.astype(np.uint8).tobytes()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)


def darcy_folder(folder, samples=120):
    """Files named and shaped as the published ones, of random numbers."""
    random = np.random.default_rng(0)
    fine = random.normal(size=(4, 32, 32)).astype(np.float32)
    parts = {
        "train_16": random.normal(size=(samples, 16, 16)).astype(np.float32),
        "test_16": np.ascontiguousarray(fine[:, ::2, ::2]),
        "test_32": fine,
    }
    for name, y in parts.items():
        (folder / f"darcy_{name}.pt").write_bytes(torch_file({"x": y > 0, "y": y}))
    return parts


def _text(text):
    return b"X" + struct.pack("<I", len(text)) + text.encode()


def _global(name):
    return b"c" + "\n".join(name.split()).encode() + b"\n"


def _integer(value):
    return b"J" + struct.pack("<i", value)


def write_trajectories(path, samples, points):
    """A NetCDF file of waves that move around a circle of length 10, at 5 times Δt = 0.2."""
    import xarray

    x, time = 10 * np.arange(points) / points, 0.2 * np.arange(5)
    phase = np.arange(samples)[:, None, None]
    states = np.sin(2 * np.pi * (x - time[:, None]) / 10 + phase).astype("f4")
    data = {"trajectories": (("sample", "time", "x"), states)}
    xarray.Dataset(data, {"time": time, "x": x}).to_netcdf(path, engine="scipy")
