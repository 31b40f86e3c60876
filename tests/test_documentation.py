"""The examples on the README and on the pages of the documentation run as they stand; names,
tables and links on them are those of the code."""

import itertools
import os
import re
import shlex
import sys
from pathlib import Path
from types import ModuleType
from typing import NamedTuple
from urllib.parse import urlsplit

import jax
import pytest
import yaml
from helpers import ROOT, fast_first
from running import run_apart, run_here

from documentation.names import check_names, with_summaries
from documentation.pages import SOURCES, TABLES, tables
from ide_transformer.pretrained.families import families
from ide_transformer.studies.schemes import load_comparison
from ide_transformer.training import Config, load_config, validated


def written(page):
    return page.relative_to(ROOT).as_posix()


WITH_RESULTS = sorted([*ROOT.glob("*.md"), *SOURCES.rglob("*.md")])
# Reports that were written by a script have no examples.
PAGES = [written(page) for page in WITH_RESULTS if page.parent.name != "results"]

# The beginnings of blocks that no test runs: they make or change environments, or need several
# devices or hosts, or minutes.
NOT_RUN = (
    "make train",
    ". .venv/3.*/bin/activate",
    "python -m pip install '.[data]'",
    "python scripts/train.py configs/finetune_glassllm.yaml",
    "python scripts/train.py configs/shakespeare.yaml parallel.data=2",
    "python scripts/train.py run.yaml parallel.fsdp=16",
    "#!/bin/sh",
    "python scripts/train.py run.yaml --resume parallel.data=2",
    "python scripts/train.py configs/plans/one_billion.yaml --plan",
)
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
    def file(self):
        """The name of the file that the block is, given by a comment in its first line."""
        match = re.match(r"# ([\w-]+\.(?:py|yaml))\n", self.text)
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
    chosen = [x for x in blocks(page) if x.language in languages]
    return [x for x in chosen if not x.text.startswith(NOT_RUN)]


def commands_of(text):
    lines = text.replace("\\\n", " ").splitlines()
    return [words for words in (shlex.split(x, comments=True) for x in lines) if words]


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
        commands = commands_of(text)
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
            assert names["adaptive"].us.shape[0] == 13
    if page == "CONTRIBUTING.md":
        assert abs(names["row"].observed_order - 3) < 0.15


@pytest.mark.parametrize("page", PAGES)
def test_the_commands_of_a_page_name_what_exists(page):
    written = {block.file for block in blocks(page)}
    shell = "".join(block.text for block in blocks(page) if block.language == "sh")
    for words in commands_of(shell):
        if words[0] != "python" or words[1] == "-m" or words[1] in written:
            continue
        paths = [word for word in words if word.startswith(("scripts/", "configs/"))]
        assert paths and all((ROOT / path).is_file() for path in paths), words
        if words[1] == "scripts/train.py" and len(paths) == 2:
            pairs = itertools.pairwise(words)
            given = [word for before, word in pairs if "=" in word and before != "--plan"]
            load_config(ROOT / paths[1], given)


def test_every_public_name_has_its_place_on_a_page():
    check_names(SOURCES / "reference" / "api")


def test_each_name_is_followed_by_the_first_clause_of_its_documentation():
    for page in (SOURCES / "reference" / "api").glob("*.md"):
        text = page.read_text(encoding="utf-8")
        assert with_summaries(text) == text, "python scripts/docs.py --tables"


def test_the_tests_that_pages_name_exist():
    named = [
        pair
        for page in SOURCES.rglob("*.md")
        for pair in re.findall(r"\b(tests/[\w/]+\.py)::(\w+)", page.read_text(encoding="utf-8"))
    ]
    assert named
    for file, name in named:
        assert f"\ndef {name}(" in (ROOT / file).read_text(encoding="utf-8"), (file, name)


@pytest.mark.parametrize(
    "name", [pytest.param(x, marks=pytest.mark.heavy) if x == "schemes" else x for x in TABLES]
)
def test_a_table_on_a_page_is_that_of_the_code(name):
    assert tables()[name] == TABLES[name](), "renew it: python scripts/docs.py --tables"


def anchors(page):
    """The anchors of a page or a tutorial: its headings, as a forge gives them, and the names
    whose documentation the site has there."""
    text = page.read_text(encoding="utf-8")
    lines = re.findall(r"^(?:# )?#+ (.*)$", text, flags=re.M)
    headings = {re.sub(r"[^\w\- ]", "", line.lower()).replace(" ", "-") for line in lines}
    return headings | set(re.findall(r"^- `([\w.]+)`", text, flags=re.M))


TUTORIALS = sorted((SOURCES / "tutorials").glob("*.py"))


@pytest.mark.parametrize("page", [*WITH_RESULTS, *TUTORIALS], ids=written)
def test_links_lead_somewhere_in_the_repository(page):
    text = page.read_text(encoding="utf-8")
    if page in TUTORIALS:
        text = "".join(re.findall(r"^# .*\n", text, flags=re.M))
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        if not urlsplit(link).scheme:
            assert target.exists(), link
            assert not anchor or anchor in anchors(target), link
