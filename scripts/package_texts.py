"""Writes the text of the configuration `growth`: sources and documentation of twelve packages.

The text has each ASCII file of 1.5 to 200 kB that ends with `.py`, `.rst` or `.md` once, in the
order of their SHA-256. pip fetches the wheels, which are neither installed nor run.
"""

import argparse
import hashlib
import sys
import zipfile
from pathlib import Path, PurePosixPath

from commands import start
from ide_transformer.errors import whole_file
from ide_transformer.packages import fetch_wheel


EXAMPLES = """\
  python scripts/package_texts.py packages.txt
"""
# The version of each package, and the SHA-256 of its wheel.
PACKAGES = {
    "transformers": (
        "4.57.1",
        "b10d05da8fa67dc41644dbbf9bc45a44cb86ae33da6f9295f5fbf5b7890bd267",
    ),
    "sympy": ("1.14.0", "e091cc3e99d2141a0ba2847328f5479b05d94a6635cb96148ccb3f34671bd8f5"),
    "pennylane": ("0.43.0", "5d7f50bad99754defe064859d89951b998e998436a2bf464ceab5b7b05cadf90"),
    "twisted": ("25.5.0", "8559f654d01a54a8c3efe66d533d43f383531ebf8d81d9f9ab4769d91ca15df7"),
    "ivy": ("1.0.0.5", "2370ebbd2ac46dcb44b6a89a0a5cd64e98cac9289708d8c946da3e7acf9b5747"),
    "jax": ("0.8.0", "d190158bc019756c6a0f6b3d5fc8783471fb407e6deaff559eaac60dd5ee850a"),
    "litellm": ("1.78.7", "aa93ae1fefe02fb00b2a78eba3c95002f9ef478bade3e22e63508830182e2dfe"),
    "diffusers": ("0.35.2", "d50d5e74fdd6dcf55e5c1d304bc52cc7c2659abd1752740d736d7b54078b4db5"),
    "langchain-community": (
        "0.4",
        "79034e7bd4ba3a67ae9d7dd7fcef63ef4ed44673480fea0405ab45295985d56d",
    ),
    "mlflow": ("3.5.1", "ebbf5fef59787161a15f2878f210877a62d54d943ad6cea140621687b2393f85"),
    "wagtail": ("7.1.2", "709ecf19ba73f8b2a231c7d07d855dc8c22a9bf418cfbc69ce25033abd68417c"),
    "sagemaker": (
        "2.253.1",
        "e04400d6133a318a823fa731708b2ae58e56eabe8111463183ab2921f1d6b916",
    ),
}
ENDINGS = {".py", ".rst", ".md"}
# Sizes of the files that are used, in bytes.
SIZES = range(1500, 200_001)


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", type=Path, help="the text file")


def run(options: argparse.Namespace) -> None:
    write_text(options.file, PACKAGES)
    print(options.file)


def write_text(path: Path, packages: dict[str, tuple[str, str]]) -> None:
    """Writes the text of packages, given the version and the SHA-256 of each wheel."""
    texts: dict[str, bytes] = {}
    for package, (version, sha256) in packages.items():
        wheel = fetch_wheel(package, version, sha256, instead="train on a text of your own")
        with zipfile.ZipFile(wheel) as archive:
            for file in archive.infolist():
                ending = PurePosixPath(file.filename).suffix
                if ending in ENDINGS and file.file_size in SIZES:
                    text = archive.read(file)
                    if text.isascii():
                        texts[hashlib.sha256(text).hexdigest()] = text
    with whole_file(path) as part:
        part.write_bytes(b"\n".join(texts[key] for key in sorted(texts)))


if __name__ == "__main__":
    start(sys.modules[__name__])
