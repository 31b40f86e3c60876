"""Commands on what others have made: each ends with a result or with one clear error, soon, and
runs no code that it was given."""

import contextlib
import resource
import signal
import time
from pathlib import Path
from typing import NamedTuple

from running import run_here


# A module that nobody trusts, which is beside what is read.
EVIL = "from pathlib import Path\nPath('EXECUTED').touch()\nraise RuntimeError('executed')\n"
# What a terminal would obey: a colour, the direction of writing, another line, a title.
OBEYED = "\x1b[31mred\x1b[0m", "\u202etxt.exe", "a\nerror: b", "\x1b]0;title\x07", "\x9b2J"
LONG = "a" * 2**18


class Case(NamedTuple):
    """A command, what is done before it, and whether it may end with a result."""

    command: tuple
    prepare: object = None
    allowed: bool = False


def write_evil(folder):
    """A package `gift` with a module `evil`, in a folder from which modules are imported."""
    (folder / "gift").mkdir()
    (folder / "gift/evil.py").write_text(EVIL)


@contextlib.contextmanager
def at_most(seconds):
    """Ends what waits for ever, such as for a pipe."""

    def late(*_):
        raise TimeoutError(f"not done after {seconds} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def check(capsys, script, *arguments, refused=True):
    """The output of a command that ends as it should."""
    most, began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    status = 2 if refused else 0
    with at_most(60):
        said = run_here(capsys, script, *arguments, expected=status)
    assert time.process_time() - began < 5
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - most < 2**21
    assert not Path("EXECUTED").exists()
    assert all(x.isprintable() or x in "\n\t" for x in said), ascii(said)
    if refused:
        message = said.split("error: ", 1)[1]
        assert len(message) < 4000 and "Traceback" not in said
        # A line of its own begins with no other word.
        assert all(line.startswith("  ") for line in message.splitlines()[1:])
    return said
