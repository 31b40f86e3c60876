"""The examples on the README and on the pages of the documentation run as they stand."""

import itertools
import os
import re
import shlex
import sys
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import jax
import pytest
import yaml
from helpers import ROOT, fast_first
from running import run_apart, run_here

from ide_transformer.pretrained.families import families
from ide_transformer.studies.schemes import load_comparison
from ide_transformer.training import Config, load_config, validated


# Reports that were written by a script have no examples.
PAGES = [
    "README.md",
    "CONTRIBUTING.md",
    *sorted(
        page.relative_to(ROOT).as_posix()
        for page in (ROOT / "docs").rglob("*.md")
        if page.parent.name != "results"
    ),
]

# Blocks that no test runs, by page and the beginning of the first line: they make or change
# environments, or need several devices or hosts, or minutes.
NOT_RUN = [
    ("docs/how-to/fine-tune.md", "python scripts/train.py configs/finetune_glassllm.yaml"),
    ("README.md", "make train"),
    ("docs/index.md", "make train"),
    ("docs/first-hour.md", "make train"),
    ("docs/first-hour.md", ". .venv/3.*/bin/activate"),
    ("docs/first-hour.md", "python -m pip install '.[data]'"),
    (
        "docs/how-to/scale.md",
        "python scripts/train.py configs/shakespeare.yaml parallel.data=2",
    ),
    ("docs/how-to/scale.md", "python scripts/train.py run.yaml parallel.fsdp=16"),
    ("docs/how-to/scale.md", "#!/bin/sh"),
    ("docs/how-to/scale.md", "python scripts/train.py run.yaml --resume parallel.data=2"),
    ("docs/how-to/scale.md", "python scripts/train.py configs/plans/one_billion.yaml --plan"),
]
# Shorter forms of what takes long.
SHORT = {
    " data.validation=0.02": "",
    "configs/quick.yaml": (
        "configs/quick.yaml training.steps=20 training.sample=0 data.validation=0.002"
    ),
    "training.steps=500": "training.steps=101 data.validation=0.01",
    "training.steps=400": "training.steps=101",
    "--samples 256": "--samples 8",
    "--samples 64": "--samples 8",
}


class Block(NamedTuple):
    """A fenced block of a page; `line` is that of its first line."""

    language: str
    text: str
    line: int

    @property
    def first_line(self):
        return self.text.split("\n")[0]

    @property
    def file(self):
        """The name of the file that the block is, given by a comment in its first line."""
        match = re.fullmatch(r"# ([\w-]+\.(?:py|yaml))", self.first_line)
        return match and match[1]


def blocks(page):
    text = (ROOT / page).read_text(encoding="utf-8")
    found = re.finditer(r"^```(\w+)\n(.*?)^```$", text, flags=re.M | re.S)
    return [Block(m[1], m[2], text[: m.start()].count("\n") + 2) for m in found]


def to_run(page):
    """The blocks of a page that are run. The commands of pages that report results or list
    what there is take minutes or hours; only those of pages that teach are run."""
    teaches = page.startswith(("README", "docs/index", "docs/first-hour", "docs/how-to/"))
    languages = ("python", "yaml", "sh") if teaches else ("python", "yaml")
    return [
        block
        for block in blocks(page)
        if block.language in languages and not skipped(page, block)
    ]


def skipped(page, block):
    return [x for x in NOT_RUN if x[0] == page and block.first_line.startswith(x[1])]


def test_what_is_not_run_is_there():
    assert set(NOT_RUN) == {
        x for page in PAGES for block in blocks(page) for x in skipped(page, block)
    }


@pytest.fixture
def clone(tmp_path, monkeypatch):
    """The current folder: it has what a clone has, and a page may write into it."""
    for name in ("configs", "docs", "scripts"):
        (tmp_path / name).symlink_to(ROOT / name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    # A reader has not switched on what the tests switch on.
    jax.config.update("jax_enable_x64", False)
    jax.config.update("jax_numpy_rank_promotion", "allow")
    yield tmp_path
    # A page may add a family.
    families.cache_clear()
    jax.config.update("jax_enable_x64", True)
    jax.config.update("jax_numpy_rank_promotion", "raise")


def run(block, names, page, capsys):
    if block.file is not None:
        Path(block.file).write_text(block.text, encoding="utf-8")
    if block.language == "yaml":
        tree = yaml.safe_load(block.text)
        if "mode" in tree:
            load_comparison(Path(block.file))
        else:
            validated(Config, tree, page)
    elif block.language == "sh":
        text = block.text
        for long, short in SHORT.items():
            text = text.replace(long, short)
        commands = [
            shlex.split(x, comments=True) for x in text.replace("\\\n", " ").splitlines()
        ]
        if all(words[:1] == ["python"] and words[1][:8] == "scripts/" for words in commands):
            # Here, where the package is loaded.
            for words in commands:
                run_here(capsys, words[1].removeprefix("scripts/"), *words[2:])
        else:
            run_apart(["bash", "-euo", "pipefail", "-c", text])
    elif block.file is None:
        # Behind as many empty lines, so that an error names the line of the page.
        exec(compile("\n" * (block.line - 1) + block.text, ROOT / page, "exec"), names)


# The page that has most of the others' commands, and one of Python.
FIRST_PAGES = ["README.md", "CONTRIBUTING.md"]


@pytest.mark.long
@pytest.mark.parametrize(
    "page", fast_first(0, dict.fromkeys([*FIRST_PAGES, *filter(to_run, PAGES)]), heavy=2)
)
def test_the_blocks_of_a_page_run_in_order(page, clone, capsys, monkeypatch):
    # A module that can be imported, so that what it defines can be pickled.
    monkeypatch.setitem(sys.modules, "page", ModuleType("page"))
    names = vars(sys.modules["page"])
    for block in to_run(page):
        run(block, names, page, capsys)
        if page == "README.md" and block.language == "python":
            assert "Solution" in capsys.readouterr().out
            assert names["adaptive"].us.shape[0] == 13
    if page == "CONTRIBUTING.md":
        errors = [
            float(line.split()[1])
            for line in re.findall(r"^\d+ \S+$", capsys.readouterr().out, re.M)
        ]
        assert 6 < errors[1] / errors[2] < 10
        assert float(names["solution"].stats["constraint_residual"]) < 1e-6


@pytest.mark.parametrize("page", PAGES)
def test_the_commands_of_a_page_name_what_exists(page):
    written = {block.file for block in blocks(page)}
    commands = (
        shlex.split(line, comments=True)
        for block in blocks(page)
        if block.language == "sh"
        for line in block.text.replace("\\\n", " ").splitlines()
    )
    for words in commands:
        if words[:1] != ["python"] or words[1] == "-m" or words[1] in written:
            continue
        paths = [word for word in words if word.startswith(("scripts/", "configs/"))]
        assert paths and all((ROOT / path).is_file() for path in paths), words
        if words[1] == "scripts/train.py" and len(paths) == 2:
            pairs = itertools.pairwise(words)
            given = [word for before, word in pairs if "=" in word and before != "--plan"]
            load_config(ROOT / paths[1], given)
