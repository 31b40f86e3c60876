"""Archives and packed images that attack their reader."""

import gzip
import struct
import zipfile
import zlib

import numpy as np
from golden.copies import make_archive
from pretrained.hostile.registry import attack

from ide_transformer import tasks
from ide_transformer.pretrained import load_pretrained


def zeros_deflated(beginning, length):
    """The stream of some bytes and then zeros, without the time that so many zeros take."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    start = packer.compress(beginning) + packer.flush(zlib.Z_FULL_FLUSH)
    block = packer.compress(bytes(2**24)) + packer.flush(zlib.Z_FULL_FLUSH)
    return start + block * (length // 2**24) + packer.flush()


def npy_header(shape):
    text = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text.encode()


@attack("that_unpacks_to_8_GB", "of_objects", "with_a_false_shape", "with_nested_options")
def archive(folder, case):
    file = folder / "x.npz"
    _, arrays = make_archive(file, vocabulary=30)
    options = '{"a":' * 100_000 if case == "with_nested_options" else "{}"
    if case == "of_objects":
        arrays["E"] = np.array([{"code": 1}] * 4, object)
    np.savez(file, __config__=np.array(options), **arrays)
    with zipfile.ZipFile(file, "a") as added:
        if case == "that_unpacks_to_8_GB":
            for name in map("{}.npy".format, range(4)):
                added.writestr(name, zeros_deflated(npy_header((2**29,)), 2**31))
                info = added.getinfo(name)
                info.compress_type, info.file_size = zipfile.ZIP_DEFLATED, 128 + 2**31
        if case == "with_a_false_shape":
            added.writestr("x.npy", npy_header((10**12,)) + bytes(64))
    return file, lambda: load_pretrained(file)


@attack("in_its_data", "in_its_directory", "twice")
def archive_damaged(folder, case):
    file = folder / "x.npz"
    make_archive(file, vocabulary=30)
    content = bytearray(file.read_bytes())
    if case == "twice":
        content = content.replace(b"blocks.0.attn.W_K", b"blocks.0.attn.W_V")
    else:
        content[len(content) // 2 if case == "in_its_data" else -200] ^= 255
    file.write_bytes(content)
    return file, lambda: load_pretrained(file)


@attack("that_unpack_to_8_GB", "that_are_too_long", "cut_off", "of_another_kind", "of_10_EB")
def images(folder, case):
    shape = (10 if case == "that_are_too_long" else 2**13, 2**10, 2**10)
    start = b"\0\0\x08\x03" + struct.pack(">3I", *shape)
    packed = b"\x1f\x8b\x08" + bytes(6) + b"\xff" + zeros_deflated(start, 2**33)
    packed += struct.pack("<2I", 0, 0)
    file = folder / "train-images-idx3-ubyte.gz"
    if case == "of_10_EB":
        file = file.with_suffix("")
        packed = b"\0\0\x08\x03" + b"\xff" * 12
    elif case == "cut_off":
        packed = gzip.compress(start)[:-9]
    elif case == "of_another_kind":
        packed = b"\x1f\x8b\x08 no archive"
    file.write_bytes(packed)
    return file, lambda: tasks.idx_folder(folder)
