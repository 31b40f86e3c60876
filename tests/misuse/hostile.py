"""What files of others may do to a reader of them."""

# A package that nobody trusts, which is beside what is read.
EVIL = "from pathlib import Path\nPath('EXECUTED').touch()\nraise RuntimeError('executed')\n"
# What a terminal would obey: a colour, the direction of writing, another line, a title.
OBEYED = "\x1b[31mred\x1b[0m", "\u202etxt.exe", "a\nerror: b", "\x1b]0;title\x07", "\x9b2J"
LONG = "a" * 2**18


def write_evil(folder):
    """A package `gift` with a module `evil`, in a folder from which modules are imported."""
    (folder / "gift").mkdir()
    (folder / "gift/evil.py").write_text(EVIL)
