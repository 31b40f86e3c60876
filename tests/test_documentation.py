"""The examples on the README and on the pages of the documentation run as they stand; names,
tables and links on them agree with the code."""

import importlib.util
import inspect
import itertools
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

import ide_transformer
from documentation.tables import PLACE, TABLES
from ide_transformer.commands.command import COMMANDS
from ide_transformer.commands.options import config_file
from ide_transformer.compare import load_comparison
from ide_transformer.pretrained.families import families
from ide_transformer.training import Config, load_config, read_section
from tests.helpers import ROOT, fast_first
from tests.running import registered, run_apart, run_here


SOURCES = ROOT / "docs"


def written(page):
    return page.relative_to(ROOT).as_posix()


WITH_RESULTS = sorted([*ROOT.glob("*.md"), *SOURCES.rglob("*.md")])
# Reports that were written by a script have no examples.
PAGES = [written(page) for page in WITH_RESULTS if page.parent.name != "results"]
# A reader follows these in an empty folder, with the wheel alone.
LESSONS = [x for x in PAGES if re.match(r"README|docs/(index|first-hour|how-to/)", x)]

# The beginnings of commands that no test runs: they change the environment, or need several
# devices or hosts, or minutes.
NOT_RUN = (
    "pip install",
    "python -m pip install",
    "ide-transformer train finetune_glassllm",
    "ide-transformer train shakespeare parallel.",
    "ide-transformer train emulators/local name=compared",
    "ide-transformer train runs/NAME",
    "srun",
)
# Shorter forms of what takes long.
_FEW = (
    "training.steps=20 training.batch_size=8 training.sample=0 optimizer.warmup=2 "
    "data.validation=0.002"
)
_DRAWN = "[{meshes: [{layers: 4}, {layers: 8}]}]"
SHORT = {
    " data.validation=0.02": "",
    "train quick": f"train quick {_FEW}",
    "train shakespeare  ": f"train shakespeare {_FEW} ",
    "train any_depth": f"train any_depth {_FEW} 'training.schedule={_DRAWN}'",
    "train emulators/own": "train emulators/own training.steps=20 optimizer.warmup=2",
    "training.steps=500": _FEW,
    "training.steps=400": "training.steps=20 optimizer.warmup=2",
    "steps: 200": "steps: 30",
    "steps: 500": "steps: 60",
    "steps: 1000": "steps: 60",
    "amount: 100": "amount: 20",
    "amount: 200": "amount: 30",
    "seeds: [0, 1, 2]": "seeds: [0]",
    "--samples 256": "--samples 8",
    "--samples 64": "--samples 8",
}


class Block(NamedTuple):
    """A fenced block of a page; `line` numbers its first line, `above` is what stands between
    it and the block before."""

    language: str
    text: str
    line: int
    above: str

    @property
    def file(self):
        """The name of the file that the block is, given by a comment in its first line."""
        match = re.match(r"# ([\w-]+\.(?:py|yaml))\n", self.text)
        return match and match[1]

    @property
    def shorter(self):
        """The block with shorter forms of what takes long."""
        text = self.text
        for long, less in SHORT.items():
            text = text.replace(long, less)
        return self._replace(text=text)

    @property
    def commands(self):
        """The words of each command of a shell block, and whether the paragraph above it, or
        the comment behind it, says that it needs a clone of the repository."""
        if self.language != "sh":
            return []
        above = self.above.strip().rpartition("\n\n")[2]
        lines = self.text.replace("\\\n", " ").splitlines()
        each = [(shlex.split(line, comments=True), above + line) for line in lines]
        return [(x, bool(re.search(r"\bclone\b", near))) for x, near in each if x]


def blocks(page):
    text, found_blocks, end = (ROOT / page).read_text(encoding="utf-8"), [], 0
    for m in re.finditer(r"^```(\w+)\n(.*?)^```$", text, flags=re.M | re.S):
        line = text[: m.start()].count("\n") + 2
        found_blocks.append(Block(m[1], m[2], line, text[end : m.start()]))
        end = m.end()
    return found_blocks


def to_run(page):
    """The blocks of a page that are run. The commands of pages that report results or list
    what there is take minutes or hours; only the commands of lessons are run."""
    languages = ("python", "yaml", "sh") if page in LESSONS else ("python", "yaml")
    return [x for x in blocks(page) if x.language in languages]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The current folder, which is empty, and into which a page may write."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    places = Path(sys.executable).parent, Path(ide_transformer.__file__).parents[1]
    for name, place in zip(("PATH", "PYTHONPATH"), places, strict=True):
        monkeypatch.setenv(name, str(place), prepend=":")
    # A reader has not switched on what the tests switch on.
    jax.config.update("jax_enable_x64", False)
    jax.config.update("jax_numpy_rank_promotion", "allow")
    yield tmp_path
    # A page may add a family, and another page a module of the same name.
    families.cache_clear()
    for name, module in [*sys.modules.items()]:
        if str(getattr(module, "__file__", None)).startswith(str(tmp_path)):
            del sys.modules[name]
    jax.config.update("jax_enable_x64", True)
    jax.config.update("jax_numpy_rank_promotion", "raise")


def run(block, names, page, capsys):
    block = block.shorter
    if block.file is not None:
        Path(block.file).write_text(block.text, encoding="utf-8")
    if block.language == "yaml":
        tree = yaml.safe_load(block.text)
        if "mode" in tree:
            load_comparison(Path(block.file))
        else:
            read_section(Config, tree, page)
    elif block.language == "sh":
        for words, in_clone in block.commands:
            command = shlex.join(words)
            if in_clone or command.startswith(NOT_RUN):
                continue
            if words[0] == "ide-transformer":
                # Here, where the package is loaded. It may switch to double precision.
                run_here(capsys, *words[1:])
                jax.config.update("jax_enable_x64", False)
            else:
                run_apart(["bash", "-c", command])
    elif block.file is None:
        # Behind as many empty lines, so that an error names the line of the page.
        exec(compile("\n" * (block.line - 1) + block.text, ROOT / page, "exec"), names)


# It has the commands of most others. The fast tests run the example of the README.
FIRST_PAGE = "docs/first-hour.md"


@pytest.mark.long
@pytest.mark.parametrize(
    "page", fast_first(0, dict.fromkeys([FIRST_PAGE, *filter(to_run, PAGES)]), heavy=1)
)
def test_the_blocks_of_a_page_run_in_order(page, folder, capsys, monkeypatch):
    if page not in LESSONS:
        (folder / "configs").symlink_to(ROOT / "configs")
    # A module that can be imported, so that what it defines can be pickled.
    monkeypatch.setitem(sys.modules, "page", ModuleType("page"))
    names = vars(sys.modules["page"])
    # The extra `reference` has it, which is large.
    lacking = importlib.util.find_spec("transformers") is None
    for block in to_run(page):
        if lacking and "from transformers import" in block.text:
            continue
        run(block, names, page, capsys)


@pytest.mark.parametrize("page", [written(page) for page in WITH_RESULTS])
def test_the_commands_of_a_page_name_what_exists(page, folder):
    page_blocks = blocks(page)
    files = {block.file: block.text for block in page_blocks if block.file is not None}
    for name, text in files.items():
        Path(name).write_text(text, encoding="utf-8")
    for words, _ in itertools.chain(*(x.commands for x in page_blocks)):
        if "ide-transformer" in words:
            command, *arguments = words[words.index("ide-transformer") + 1 :]
            assert command in {*COMMANDS, *registered().names}, words
            if command in ("train", "compare") and "--resume" not in arguments:
                check_config(command, *arguments, files=files)
        elif words[0] == "python" and words[1] != "-m" and words[1] not in files:
            folders = "scripts/", "configs/", "docs/", "tests/"
            paths = [x for x in words if x.startswith(folders)]
            assert paths and all((ROOT / path).is_file() for path in paths), words


def check_config(command, name, *arguments, files):
    """A configuration that a command names is one of these `files` or comes with the package,
    and has the keys that the command changes."""
    if name in files:
        return
    file = config_file(name)
    if command == "train":
        pairs = itertools.pairwise(("", *arguments))
        file_options = "--plan", "--baseline"
        load_config(file, [x for before, x in pairs if "=" in x and before not in file_options])


# The modules whose names users may import, from the file `public` of those that have one.
FACES = "", ".contrib", ".dynamics", ".equation", ".integration", ".models", ".pretrained"
FACES += ".solvers", ".tasks", ".testing", ".training"


def test_every_public_name_has_one_place_on_a_page_of_the_api():
    public = {}
    for face in [f"ide_transformer{name}" for name in FACES]:
        module = importlib.import_module(face)
        if face != "ide_transformer":
            module = getattr(module, "public", module)
        for name in dir(module):
            value = getattr(module, name)
            if not name.startswith("_") and not inspect.ismodule(value):
                public.setdefault(id(value), []).append(f"{face}.{name}")
    text = "\n".join(x.read_text("utf-8") for x in (SOURCES / "reference/api").glob("*.md"))
    # A function that hides its file has a place as `file.function`.
    placed = [re.sub(r"(\.\w+)\1$", r"\1", x) for x in re.findall(r"^::: (\S+)$", text, re.M)]
    # Of contrib, a name may also stand in its file alone.
    placed = [x for x in placed if not re.match(r"ide_transformer\.contrib\.\w+\.", x)]
    assert sorted(placed) == sorted(min(names, key=len) for names in public.values())


def test_a_table_says_which_figures_each_comparison_made():
    text = (SOURCES / "results.md").read_text(encoding="utf-8")
    _, table = text.split("## Which comparison made which figure\n")
    files = (ROOT / "configs" / "compare").glob("*.yaml")
    named_files = re.findall(r"`(\w+)`", table)
    assert sorted(named_files) == sorted(file.stem for file in files)


def test_the_tests_that_pages_name_exist():
    text = "".join(page.read_text(encoding="utf-8") for page in SOURCES.rglob("*.md"))
    named_tests = re.findall(r"\b(tests/[\w/]+\.py)::(\w+)", text)
    assert named_tests
    for file, name in named_tests:
        assert f"\ndef {name}(" in (ROOT / file).read_text(encoding="utf-8"), (file, name)


@pytest.mark.parametrize(
    "name", [pytest.param(x, marks=[pytest.mark.heavy] * (x == "orders_table")) for x in TABLES]
)
def test_a_table_on_a_page_is_that_of_the_code(name):
    pages = [x.read_text(encoding="utf-8") for x in sorted(SOURCES.rglob("*.md"))]
    on_pages = {x[2]: x[3] for page in pages for x in PLACE.finditer(page)}
    assert on_pages[name] == TABLES[name](), "renew it: make tables"


def anchors(page):
    """The anchors of a page or a tutorial: its headings, as a forge gives them, and the names
    whose documentation the site has there."""
    text = page.read_text(encoding="utf-8")
    lines = re.findall(r"^(?:# )?#+ (.*)$", text, flags=re.M)
    headings = {re.sub(r"[^\w\- ]", "", line.lower()).replace(" ", "-") for line in lines}
    return headings | set(re.findall(r"^::: ([\w.]+)$", text, flags=re.M))


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


def test_the_navigation_of_the_site_has_every_page_once():
    pages = [*SOURCES.rglob("*.md"), *TUTORIALS]
    names = [page.relative_to(SOURCES).with_suffix(".md").as_posix() for page in pages]
    in_navigation = re.findall(r": (\S+\.md)$", (ROOT / "mkdocs.yml").read_text("utf-8"), re.M)
    assert sorted(in_navigation) == sorted(names)
