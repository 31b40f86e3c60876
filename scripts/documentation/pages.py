"""Writes the pages of the site into build/docs, with README first and tutorials run."""

import argparse
import os
import re
import shutil
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jupytext
from nbclient import NotebookClient
from nbconvert import MarkdownExporter


ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
PAGES = ROOT / "build" / "docs"
REPOSITORY = "https://github.com/ide-transformer/ide_transformer/blob/main"
# The keys of a configuration that set how long it trains.
_LENGTHS = r"\b((?:steps|batch_size|warmup|evaluate_every|amount): |training_steps = )(\d+)"


def write_pages(extent: str) -> None:
    shutil.rmtree(PAGES, ignore_errors=True)
    shutil.copytree(DOCS, PAGES, ignore=shutil.ignore_patterns("*.py", "*.ipynb"))
    index = PAGES / "index.md"
    readme = (ROOT / "README.md").read_text(encoding="utf-8").replace("](docs/", "](")
    readme = re.sub(r"\]\(([A-Z]+\.\w+)\)", rf"]({REPOSITORY}/\1)", readme)
    index.write_text(f"{readme}\n{index.read_text(encoding='utf-8')}", encoding="utf-8")
    # These two take half of the time.
    scripts = sorted(
        DOCS.glob("tutorials/*.py"), key=lambda x: x.stem not in ("any-depth", "train")
    )
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for _ in pool.map(lambda script: _write_tutorial(script, extent), scripts):
            pass
    for page in PAGES.rglob("*.md"):
        # A figure and its interval stay in one line.
        text = page.read_text(encoding="utf-8").replace(" ± ", "\u00a0±\u00a0")
        # Links lead to the pages of tutorials, no longer to their scripts.
        text = re.sub(r"(\]\([^):]+)\.py(?=[)#])", r"\1.md", text)
        page.write_text(text, encoding="utf-8")


def _write_tutorial(script: Path, extent: str) -> None:
    """Writes the page of a tutorial, and its figures."""
    text = script.read_text(encoding="utf-8")
    if extent == "short":
        text = re.sub(_LENGTHS, lambda x: f"{x[1]}{max(1, int(x[2]) // 10)}", text)
    notebook = jupytext.reads(text, "py:percent")
    notebook.metadata.language_info = {"name": "python"}
    if extent != "draft":
        options = ["--log-level=ERROR", "--InlineBackend.figure_formats=retina"]
        client = NotebookClient(notebook, kernel_name="python3", extra_arguments=options)
        with tempfile.TemporaryDirectory() as folder:
            client.execute(cwd=folder)
        print(f"ran {script.name}", flush=True)
    for cell in notebook.cells:
        outputs = cell.get("outputs", [])
        visible = ("stdout", "display_data")
        outputs[:] = [x for x in outputs if x.get("name", x.output_type) in visible]
    names = {"unique_key": script.stem, "output_files_dir": ""}
    page, resources = MarkdownExporter().from_notebook_node(notebook, names)

    def describe(image: re.Match[str]) -> str:
        titles = re.findall(r'title[=(]"(.+?)"', notebook.cells[int(image[2])].source)
        assert titles, f"{script.name}: a figure needs a title"
        return f"![{titles[-1]}]({image[1]})"

    folder = PAGES / "tutorials"
    folder.mkdir(exist_ok=True)
    page = re.sub(r"!\[png\]\(([\w-]+?_(\d+)_\d+\.png)\)", describe, page)
    (folder / f"{script.stem}.md").write_text(page, encoding="utf-8")
    for name, figure in resources["outputs"].items():
        (folder / name).write_bytes(figure)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    extents = parser.add_mutually_exclusive_group()
    extents.add_argument("--draft", action="store_true", help="run no tutorial")
    extents.add_argument("--short", action="store_true", help="a tenth of their training")
    options = parser.parse_args()
    # Outputs are plain text, whatever the terminal in which the site is built.
    os.environ.update(NO_COLOR="1", TERM="dumb", COLUMNS="96")
    if options.short:
        os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "1"  # compiling takes most of the time
    write_pages("draft" if options.draft else "short" if options.short else "full")
