"""Labelled images to learn from."""

import gzip
import math
import struct
import zlib
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..errors import InputError


# What a packed file may hold: so many bytes, or so many times its own. Images that are packed
# become some five times smaller.
_MOST_UNPACKED = 64 * 2**20
_MOST_TIMES = 50


class LabelledImages(NamedTuple):
    """`images: [samples, rows, columns, channels]`, float32, and `labels: [samples]`."""

    images: np.ndarray
    labels: np.ndarray


def digits() -> tuple[LabelledImages, LabelledImages]:
    """scikit-learn's 1,797 handwritten digits of 8 by 8 pixels: a training set, and a fifth
    held out. The split is fixed and keeps the proportions of the classes."""
    try:
        from sklearn.datasets import load_digits
        from sklearn.model_selection import train_test_split
    except ImportError:
        raise InputError(
            "data.name=digits reads the images that come with scikit-learn, which is not "
            "installed; run: pip install 'ide_transformer[data]'."
        ) from None
    bunch: Any = load_digits()
    images = (bunch.images / 16).astype(np.float32)[..., None]
    labels = bunch.target.astype(np.int32)
    train, test = train_test_split(
        np.arange(len(labels)), test_size=0.2, random_state=0, stratify=labels
    )
    return _standardized(
        LabelledImages(images[train], labels[train]), LabelledImages(images[test], labels[test])
    )


def idx_folder(path: Path) -> tuple[LabelledImages, LabelledImages]:
    """The training and test set in a folder with four IDX files, as those of MNIST, compressed
    or not.

    **Raises:** `InputError` where a file is missing, cut off, or does not fit the others.
    """
    if not path.is_dir():
        raise InputError(f"data.path={path}: there is no such folder.")
    train, test = (
        LabelledImages(
            _read_idx(path, f"{part}-images", 3)[..., None].astype(np.float32) / 255,
            _read_idx(path, f"{part}-labels", 1).astype(np.int32),
        )
        for part in ("train", "t10k")
    )
    for name, part in (("train", train), ("t10k", test)):
        if len(part.images) != len(part.labels):
            raise InputError(
                f"data.path={path}: {name} has {len(part.images)} images but "
                f"{len(part.labels)} labels; the files do not belong together."
            )
    return _standardized(train, test)


def _standardized(
    train: LabelledImages, test: LabelledImages
) -> tuple[LabelledImages, LabelledImages]:
    """Both sets, shifted and scaled so that the training pixels have mean 0 and deviation 1."""
    mean, std = train.images.mean(), train.images.std()

    def scaled(part: LabelledImages) -> LabelledImages:
        return part._replace(images=(part.images - mean) / std)

    return scaled(train), scaled(test)


def _read_idx(folder: Path, stem: str, dimensions: int) -> np.ndarray:
    found = sorted(folder.glob(f"{stem}*idx{dimensions}-ubyte*"))
    if not found:
        present = ", ".join(sorted(f.name for f in folder.iterdir())[:8]) or "nothing"
        raise InputError(
            f"data.path={folder}: no file {stem}-idx{dimensions}-ubyte or "
            f"{stem}-idx{dimensions}-ubyte.gz; the folder holds {present}."
        )
    file = found[0]
    try:
        with gzip.open(file) if file.suffix == ".gz" else file.open("rb") as stream:
            return _images(stream, file, dimensions)
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{file} is damaged or cannot be read: {error}.") from None


def _images(stream: Any, file: Path, dimensions: int) -> np.ndarray:
    """The numbers of an IDX file: two zero bytes, 8 for unsigned bytes, the number of
    dimensions; then the shape."""
    header = stream.read(4 + 4 * dimensions)
    if header[:4] != bytes([0, 0, 8, dimensions]) or len(header) < 4 + 4 * dimensions:
        raise InputError(
            f"{file} is not an IDX file of unsigned bytes in {dimensions} dimensions."
        )
    shape = struct.unpack(f">{dimensions}I", header[4:])
    number, most = math.prod(shape), file.stat().st_size
    if file.suffix == ".gz":
        most = max(_MOST_UNPACKED, _MOST_TIMES * most)
        if number > most:
            raise InputError(
                f"{file} has {file.stat().st_size:,} bytes, but its header says {shape}. If "
                "you trust it, unpack it yourself."
            )
    content = stream.read(min(number, most) + 1)
    if len(content) != number:
        raise InputError(
            f"{file} is cut off, or too long: its header says {shape}, which is not what "
            "follows."
        )
    return np.frombuffer(content, np.uint8).reshape(shape)
