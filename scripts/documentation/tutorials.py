"""A hook of mkdocs: Jupyter runs each script in docs/tutorials, which becomes a page."""

import os
import re
import tempfile
from concurrent.futures import ThreadPoolExecutor

import jupytext
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from nbclient import NotebookClient
from nbconvert import MarkdownExporter


# What says in a configuration how long it trains.
_LENGTHS = r"\b((?:steps|batch_size|warmup|evaluate_every|amount): |training_steps = )(\d+)"


class _Page(File):
    """A script that is a page, so that links to the script lead to the page."""

    def is_documentation_page(self) -> bool:
        return True


def on_files(files: Files, config: MkDocsConfig) -> None:
    # Outputs are plain text, whatever the terminal in which the site is built.
    os.environ.update(NO_COLOR="1", TERM="dumb", COLUMNS="96")
    if config.extra["tutorials"] == "--short":
        os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "1"  # compiling takes most of the time
    scripts = [x for x in files if re.fullmatch(r"tutorials/[\w-]+\.py", x.src_uri)]
    # These two take half of the time.
    scripts.sort(key=lambda script: script.name not in ("any-depth", "train"))
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        pages = pool.map(lambda script: _page(script, config.extra["tutorials"]), scripts)
        for script, (page, figures) in zip(scripts, pages, strict=True):
            files.remove(script)
            files.append(_Page.generated(config, script.src_uri, content=page))
            for name, figure in figures.items():
                files.append(File.generated(config, f"tutorials/{name}", content=figure))


def _page(script: File, extent: str) -> tuple[str, dict[str, bytes]]:
    """The page of a tutorial, and its figures by their names."""
    text = script.content_string
    if extent == "--short":
        text = re.sub(_LENGTHS, lambda x: f"{x[1]}{max(1, int(x[2]) // 10)}", text)
    notebook = jupytext.reads(text, "py:percent")
    notebook.metadata.language_info = {"name": "python"}
    if extent != "--draft":
        options = ["--log-level=ERROR", "--InlineBackend.figure_formats=retina"]
        client = NotebookClient(notebook, kernel_name="python3", extra_arguments=options)
        with tempfile.TemporaryDirectory() as folder:
            client.execute(cwd=folder)
        print(f"ran {script.src_uri}", flush=True)
    for cell in notebook.cells:
        outputs = cell.get("outputs", [])
        shown = ("stdout", "display_data")
        outputs[:] = [x for x in outputs if x.get("name", x.output_type) in shown]
    names = {"unique_key": script.name, "output_files_dir": ""}
    page, resources = MarkdownExporter().from_notebook_node(notebook, names)

    def described(image: re.Match[str]) -> str:
        titles = re.findall(r'title[=(]"(.+?)"', notebook.cells[int(image[2])].source)
        assert titles, f"{script.src_uri}: a figure needs a title, which describes it"
        return f"![{titles[-1]}]({image[1]})"

    return re.sub(r"!\[png\]\(([\w-]+?_(\d+)_\d+\.png)\)", described, page), resources[
        "outputs"
    ]
