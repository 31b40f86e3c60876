"""Runs a tutorial and writes its page: prose, code, and under each cell what it prints and
draws. `# %% [markdown]` begins a cell of prose in comments, `# %%` one of code."""

import argparse
import contextlib
import io
import re
import sys
import types
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib
import matplotlib.pyplot as plt
from matplotlib.figure import Figure


# What says in a configuration how long it trains.
_LENGTHS = re.compile(
    r"\b((?:steps|batch_size|warmup|evaluate_every|amount): |training_steps = )(\d+)"
)


class Cell(NamedTuple):
    """A part of a tutorial, and the line of the script on which its head stands."""

    prose: bool
    text: str
    line: int


def cells_of(script: str) -> list[Cell]:
    """The cells of a script."""
    before, *parts = re.split(r"^# %%(.*)$", script, flags=re.M)
    if before.strip():
        raise ValueError("a tutorial begins with `# %% [markdown]`")
    cells, line = [], 1 + before.count("\n")
    for kind, text in zip(parts[::2], parts[1::2], strict=True):
        cells.append(Cell(kind.strip() == "[markdown]", text, line))
        line += text.count("\n")
    return [cell for cell in cells if cell.text.strip()]


def shortened(script: str) -> str:
    """The script with a tenth of the training in its configurations."""
    return _LENGTHS.sub(lambda found: f"{found[1]}{max(1, int(found[2]) // 10)}", script)


def write_page(script: Path, folder: Path, *, run: bool = True, short: bool = False) -> None:
    """Writes the page of a tutorial and its figures into `folder`."""
    blocks, drawn = [], 0
    # The script is the main module, as it is when a reader runs it.
    main = types.ModuleType("__main__")
    main.__file__ = str(script)
    sys.modules["__main__"] = main
    text = script.read_text(encoding="utf-8")
    for cell in cells_of(shortened(text) if short else text):
        if cell.prose:
            blocks.append(_uncommented(cell.text))
            continue
        blocks.append(_fenced("python", cell.text.strip("\n")))
        if run:
            printed, figures = _run(cell, script, vars(main))
            blocks += [_fenced("text", printed)] if printed else []
            for figure in figures:
                drawn += 1
                name = f"{script.stem}-{drawn}.png"
                figure.savefig(folder / name)
                plt.close(figure)
                blocks.append(f"![{_description(figure)}]({name})")
    page = "\n\n".join(blocks) + "\n"
    (folder / f"{script.stem}.md").write_text(page, encoding="utf-8")


def _run(cell: Cell, script: Path, names: dict[str, Any]) -> tuple[str, list[Figure]]:
    """The output of a cell, and the figures that it leaves open."""
    # Behind as many empty lines, so that an error names the line of the script.
    code = compile("\n" * (cell.line - 1) + cell.text, str(script), "exec")
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(code, names)
    text = "\n".join(line.rstrip() for line in printed.getvalue().splitlines())
    return text.strip("\n"), [plt.figure(number) for number in plt.get_fignums()]


def _uncommented(text: str) -> str:
    if wrong := re.search(r"^(?!#( |$)).*\S.*", text, flags=re.M):
        raise ValueError(f"a line of prose begins with `# `: {wrong[0]!r}")
    return re.sub(r"^# ?", "", text, flags=re.M).strip("\n")


def _fenced(language: str, text: str) -> str:
    return f"```{language}\n{text}\n```"


def _description(figure: Figure) -> str:
    """The words that stand for a figure: its title, or the labels of its axes."""
    axes = figure.axes[0]
    x, y = axes.get_xlabel(), axes.get_ylabel()
    title = figure.get_suptitle() or axes.get_title() or (x and y and f"{y} against {x}")
    if not title:
        raise ValueError("a figure needs a title, or labels on both axes")
    return title


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("script", type=Path)
    parser.add_argument("folder", type=Path, help="where the page and its figures go")
    parser.add_argument("--short", action="store_true", help="with a tenth of the training")
    arguments = parser.parse_args()
    matplotlib.use("agg")
    plt.rcParams |= {"figure.figsize": (7, 4), "figure.dpi": 150, "savefig.bbox": "tight"}
    plt.show = lambda *_, **__: None
    # Modules that a tutorial writes into its working folder can be imported.
    sys.path[0] = ""
    script, folder = arguments.script.resolve(), arguments.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    write_page(script, folder, short=arguments.short)


if __name__ == "__main__":
    main()
