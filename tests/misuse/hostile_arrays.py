"""Arrays that no model learns, and files that hold none, by name, in tables."""

import os
import re
import struct
import zipfile

import numpy as np

from tests.misuse.hostile import NO_FILE, NO_JSON, content


_DRAWN = np.random.default_rng(0)
_REAL, _OTHER = _DRAWN.normal(size=(2, 20, 32))
_WORDS, _NEXT = _DRAWN.integers(0, 5, (2, 20, 6))
_CLASSES = np.arange(20) % 3
# Right inputs and targets, by the kind of model that learns them.
ARRAYS = {
    "operator_model": (_REAL, _OTHER),
    "sequence_classifier": (_WORDS, _CLASSES),
    "language_model": (_WORDS, _NEXT),
    "image_classifier": (_REAL.reshape(20, 4, 8), _CLASSES),
}
# What one of both becomes.
CHANGES = {
    "complex": lambda x: x + 1j,
    "bool": lambda x: x > 0,
    "texts": lambda x: x.astype(str),
    "bytes": lambda x: x.astype("S4"),
    "objects": lambda x: x.astype(object),
    "times": lambda x: x.astype("datetime64[s]"),
    "records": lambda x: np.zeros(x.shape, [("a", "f4")]),
    "not finite": lambda x: np.where(np.arange(x.size).reshape(x.shape) == 3, np.nan, x),
    "beyond float32": lambda x: (x + 1) * 1e300,
    "beyond int32": lambda x: np.abs(x).astype(np.uint64) + 2**40,
    "below zero": lambda x: -x.astype(int) - 2,
    "nothing": lambda x: x[:0],
    "fewer samples": lambda x: x[:-1],
    "a number": lambda x: x.ravel()[0],
    "no tokens": lambda x: x.reshape(len(x), -1)[:, :0],
    "many axes": lambda x: x.reshape(*x.shape, 1, 1, 1),
}
# Options of such data that are wrong, by the kind that takes them; and further arrays.
OPTIONS = {
    "any": (
        *("validation=1.0", "validation=-0.1", "validation=.nan", "validation=0.001", "test=1"),
        *("options.inputs=none", "options.targets=3", "options.x=1", "column=text", "path=''"),
        *("path=nowhere.npz", "path=/dev/zero", "options.groups=inputs", "tokenizer=bpe"),
    ),
    "operator_model": (
        *("options.grid=x", "options.channels=true", "options.causal=maybe", "vocabulary=8"),
        *("options.points=[0.5]", "options.classes=2"),
    ),
    "sequence_classifier": ("vocabulary=2", "options.classes=2", "options.grid=periodic"),
    "language_model": ("vocabulary=2", "vocabulary=0", "options.classes=3"),
    "image_classifier": ("options.classes=0", "options.channels=true", "vocabulary=9"),
}
FURTHER = {
    "texts as points": {"points": np.array(["a"] * 32)},
    "points without an axis": {"points": np.zeros((32, 0))},
    "too few points": {"points": np.linspace(0, 1, 7)},
    "points that are not finite": {"points": np.full(32, np.nan)},
    "points beyond the interval": {"points": np.linspace(0, 9, 32)},
    "complex points": {"points": np.linspace(0, 1, 32) + 1j},
    "weights without points": {"weights": np.ones(32)},
    **{
        f"{name} as weights": {"points": np.linspace(0, 1, 32), "weights": x}
        for name, x in {
            **{
                "texts": np.array(["a"] * 32),
                "bools": np.ones(32, bool),
                "nothing": np.ones(0),
            },
            **{"complex numbers": np.ones(32) * 1j, "infinities": np.full(32, np.inf)},
            "numbers below zero": -np.ones(32),
        }.items()
    },
    "test inputs alone": {"test_inputs": _REAL},
    "validation of another shape": {
        "validation_inputs": _REAL[:, :16],
        "validation_targets": _REAL[:, :16],
    },
}


def arrays():
    """The arrays and the option of each case, and the kind that would learn them."""
    for kind, (inputs, targets) in ARRAYS.items():
        for name, change in CHANGES.items():
            # Inputs and targets of these may be such integers.
            if (kind, name) != ("operator_model", "below zero"):
                yield f"{kind}: {name} as inputs", (kind, change(inputs), targets, {}, "")
                yield f"{kind}: {name} as targets", (kind, inputs, change(targets), {}, "")
        for option in (*OPTIONS["any"], *OPTIONS[kind]):
            yield f"{kind}: {option}", (kind, inputs, targets, {}, f"data.{option}")
    for name, further in FURTHER.items():
        yield name, ("operator_model", *ARRAYS["operator_model"], further, "")


def header(shape, kind="<f8"):
    text = (
        f"{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    )
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", 118) + text.encode()


def member(content, **info):
    """An archive with two such arrays, of which the directory says something else."""

    def write(path):
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name in ("inputs.npy", "targets.npy"):
                archive.writestr(name, content)
                vars_of = archive.getinfo(name)
                for key, value in info.items():
                    setattr(vars_of, key, value)

    return write


def damaged(change):
    def write(path):
        np.savez(path, inputs=_REAL, targets=_REAL)
        path.write_bytes(change(path.read_bytes()))

    return write


def pipe_inside(path):
    path.mkdir()
    np.save(path / "inputs.npy", _REAL)
    os.mkfifo(path / "targets.npy")


# What stands where arrays are looked for.
FILES = {
    **{f"a file: {name}": content(x) for name, x in NO_JSON.items()},
    **{f"a file: {name}": change for name, change in NO_FILE.items()},
    "a folder with a pipe": pipe_inside,
    "cut": damaged(lambda x: x[: len(x) // 2]),
    "flipped": damaged(lambda x: x[:300] + bytes([x[300] ^ 1]) + x[301:]),
    "without an end": damaged(lambda x: x[:-22]),
    "encrypted": damaged(
        lambda x: re.sub(
            rb"(PK\x01\x02.{4})\x00", lambda found: found[1] + b"\x01", x, flags=re.S
        )
    ),
    "of another compression": member(header((2,)) + bytes(16), compress_type=99),
    "of objects": member(header((2,), "|O") + b"cos\nsystem\n(S'touch EXECUTED'\ntR."),
    "of 16 TB": member(header((2**41,)) + bytes(16)),
    "of 16 GB that are packed": member(header((2**31,)) + bytes(2**20), file_size=2**34),
    "of a shape that is none": member(header((-1,)) + bytes(16)),
    "of a header that is code": member(header("__import__('os')") + bytes(16)),
    "of an unknown version": member(header((2,)).replace(b"\x01\x00", b"\x09\x00", 1)),
}
