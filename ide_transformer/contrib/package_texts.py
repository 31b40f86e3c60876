"""A large, reproducible text: the sources and documentation of Python packages."""

import hashlib
import zipfile
from pathlib import Path, PurePosixPath
from typing import Any

from ide_transformer.arguments import checked
from ide_transformer.errors import InputError, whole_file
from ide_transformer.packages import announce, cache_folder, fetch_wheel
from ide_transformer.tasks import Dataset


_ENDINGS = {".py", ".rst", ".md"}
# Sizes of the files that are used, in bytes.
_SIZES = range(1500, 200_001)


class PackageTexts(Dataset):
    """Predict each next token of the `.py`, `.rst` and `.md` files of Python packages. The text
    has each ASCII file of 1.5 to 200 kB once, sorted by SHA-256. Its end is held out.

    **Arguments:** see `Dataset`, and

    - `packages`: the SHA-256 of each wheel, by package and version such as `sympy==1.14.0`.
    """

    @classmethod
    def build(cls, packages: dict[str, str], context: int, **options: Any) -> "PackageTexts":
        return cls(text_of_packages(packages), context, **options)


@checked
def text_of_packages(packages: dict[str, str]) -> Path:
    """Returns the file with the text of packages, see `PackageTexts`. Writes it once."""
    listing = "\n".join(f"{name} {sha256}" for name, sha256 in sorted(packages.items()))
    key = hashlib.sha256(listing.encode()).hexdigest()[:16]
    path = cache_folder() / f"packages-{key}.txt"
    if path.exists():
        return path
    texts: dict[str, bytes] = {}
    for name, sha256 in packages.items():
        package, equal, version = name.partition("==")
        if not equal:
            raise InputError(f"packages: {name} must have a version, as in sympy==1.14.0.")
        wheel = fetch_wheel(package, version, sha256, instead="remove the package")
        with zipfile.ZipFile(wheel) as archive:
            for file in archive.infolist():
                ending = PurePosixPath(file.filename).suffix
                if ending in _ENDINGS and file.file_size in _SIZES:
                    text = archive.read(file)
                    if text.isascii():
                        texts[hashlib.sha256(text).hexdigest()] = text
    announce(f"writing the text of {len(packages)} packages", path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as part:
        part.write_bytes(b"\n".join(texts[key] for key in sorted(texts)))
    return path
