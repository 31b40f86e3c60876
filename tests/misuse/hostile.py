"""Tables of wrong files and of harmful values: configurations, and runs of others."""

import json
import os
from pathlib import Path

from tests.training import wrong_configs


# A package that nobody trusts, which is beside what is read.
EVIL = "from pathlib import Path\nPath('EXECUTED').touch()\nraise RuntimeError('executed')\n"
# What a terminal would obey: a colour, the direction of writing, another line, a title.
OBEYED = "\x1b[31mred\x1b[0m", "\u202etxt.exe", "a\nerror: b", "\x1b]0;title\x07", "\x9b2J"
LONG = "a" * 2**18
PNG = b"\x89PNG\r\n\x1a\n"


def write_evil(folder):
    """A package `gift` with a module `evil`, in a folder from which modules are imported."""
    (folder / "gift").mkdir()
    (folder / "gift/evil.py").write_text(EVIL)


def texts_of_configs():
    """Overrides that give each key that takes a text the name of code, and one key all texts
    that do harm, by the key."""
    harm = {"long": LONG, "code": "gift.evil:Part", "dots": "a." * 2**17, "path": "../" * 2000}
    harm |= {f"obeyed{number}": text for number, text in enumerate(OBEYED)}
    free = ("name", "data.column", "model.run")  # texts that are taken as they are
    for key, annotation in wrong_configs.keys().items():
        if str in wrong_configs.kinds_of(annotation) and key not in free:
            texts = harm if key == "solver.kind" else {"code": harm["code"]}
            yield from ((f"{key}: {name}", (key, text)) for name, text in texts.items())


# Wrong texts of configurations, beside `wrong_configs`.
CONFIGS = {
    "a key that is long": json.dumps({LONG[:-20]: 1}),
    "many names of code": json.dumps([f"a{n}:b" for n in range(20_000)]),
    "a number of many digits": f"training: {{steps: {'9' * 2**17}}}",
    "moments that nest": "training: {schedule: [{until: '" + "(" * 5_000 + "'}]}",
    "moments that are products": "training: {schedule: [{until: '10**10**10%'}]}",
    "groups of stars": "optimizer: {groups: {'" + "*a" * 50_000 + "': 1.0}}",
    **{f"a key that is obeyed {n}": json.dumps({x: 1}) for n, x in enumerate(OBEYED)},
    **{f"a tag {x}": f"model: !!python/{x} [a]" for x in ("name:os.system", "object/new:os")},
    "an alias that grows": "a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]",
    "a merge": "a: {<<: {b: 1}}",
    "half of a pair": b'model: {kind: "\\ud800"}',
    "not in UTF-8": b"model: \xff",
    "a byte of zero": b"model: \x00",
    "nothing but a list": "- a\n- b",
}


def link(target):
    return lambda path: path.symlink_to(target)


def content(given):
    given = given.encode() if isinstance(given, str) else given
    return lambda path: path.write_bytes(given)


def sparse(path):
    path.write_bytes(PNG)
    os.truncate(path, 2**33)


def line_of(**values):
    return content(json.dumps({"step": 1, "loss": 1.0} | values) + "\n")


END = {"validation_loss": 1.25, "steps": 3, "nfe": 2, "parameters": 7, "seconds": 1.0}
DEEP = "[" * 100_000
# A file of a run and what it becomes; whether a page may still be made of the run.
NO_JSON = {"a list": "[]", "half": '{"step": 1', "deep": DEEP, "bytes": bytes(range(128, 250))}
NO_FILE = {"pipe": os.mkfifo, "zero": link("/dev/zero"), "folder": Path.mkdir, "full": sparse}
FILES = "metrics.jsonl", "summary.json", "config.yaml"
REPORTS = {
    **{
        f"{file}: {name}": (file, content(x), False)
        for file in FILES
        for name, x in NO_JSON.items()
    },
    **{
        f"{file}: {name}": (file, change, False)
        for file in ("metrics.jsonl", "plots/a.png")
        for name, change in NO_FILE.items()
    },
    **{
        f"a line with {name}": ("metrics.jsonl", line_of(**values), False)
        for name, values in {
            "a large step": {"step": 1e308},
            "a loss that is a text": {"loss": "<script>"},
            "a loss that is a section": {"loss": {"a": 1}},
            "a loss of many digits": {"loss": 10**400},
        }.items()
    },
    "a line with a key of HTML": ("metrics.jsonl", line_of(**{"solver.<script>": 1.0}), True),
    "a line with a key that is obeyed": ("metrics.jsonl", line_of(**{OBEYED[0]: 1.0}), True),
    **{
        f"a summary with {name}": ("summary.json", content(json.dumps(END | values)), allowed)
        for name, values, allowed in (
            ("a section", {"seconds": {"a": 1}}, False),
            ("many digits", {"parameters": 10**400}, True),
            ("a key of HTML", {"test_<script>": 1.0}, True),
            ("a key that is obeyed", {f"test_{OBEYED[0]}": 1.0}, True),
        )
    },
    **{
        f"fingerprints: {name}": ("fingerprints.json", content(x), True)
        for name, x in {**NO_JSON, "a number for code": '{"sources": 3}'}.items()
    },
    "a figure that is a link": ("plots/a.png", link("/etc/hostname"), False),
    "a figure that is a text": ("plots/a.png", content("SECRET"), False),
    "a figure that is a page": ("plots/a.png", content("<html><script>"), False),
    "a figure with a name of HTML": ("plots/<script>.png", content(PNG), True),
    "a figure with a name that is obeyed": (f"plots/{OBEYED[0]}.png", content(PNG), True),
    "plots that are a link": ("plots", link("/etc"), False),
    "a sample that is a link": ("sample.txt", link("../SECRET"), False),
    "a sample of HTML": ("sample.txt", content("</pre><script>alert(1)</script>"), True),
    "a sample that is no text": ("sample.txt", content(bytes(range(256))), True),
    **{
        f"code in {key}": ("config.yaml", content(f"version: 3\n{key}: gift.evil:Part"), False)
        for key in ("solver", "control", "gift.evil:Part")
    },
}
