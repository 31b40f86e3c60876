"""Reports, full disks, figures and pages."""

import base64
import csv
import errno
import json
import math
import re

import numpy as np
import pytest

from ide_transformer import figures
from ide_transformer.figures import Curve, Part, draw_panels, plot_fields, plots, write_page
from ide_transformer.reporting import Report, show_table, write_json, write_report


def test_a_report_says_the_same_in_every_form(tmp_path, capsys):
    rows = [
        {"scheme": "euler [no recipe]", "loss": 0.123456, "steps": 20_000, "seeds": [0.5, 2.0]},
        {"scheme": "heun", "loss": None, "steps": 2, "seeds": [], "why": "a | b\n[/tmp/x]"},
    ]
    headings = {"seeds": "loss of each seed"}
    write_report(tmp_path, Report("small", "About it.", rows, headings))
    content = json.loads((tmp_path / "report.json").read_text())
    assert content == {"about": "About it.", "rows": rows}
    with (tmp_path / "report.csv").open(newline="") as file:
        assert [row["steps"] for row in csv.DictReader(file)] == ["20000", "2"]
    assert (tmp_path / "report.md").read_text().splitlines() == [
        *("# small", "", "About it.", ""),
        "| scheme | loss | steps | loss of each seed | why |",
        "| --- | --- | --- | --- | --- |",
        "| euler [no recipe] | 0.1235 | 20,000 | 0.5, 2 | – |",
        "| heun | – | 2 |  | a \\| b [/tmp/x] |",
    ]
    show_table(rows, headings)
    printed = capsys.readouterr().out
    assert all(x in printed for x in ("euler [no recipe]", "0.1235", "20,000", "[/tmp/x]"))
    write_report(tmp_path, Report("nothing", "There was no time.", []))
    assert json.loads((tmp_path / "report.json").read_text())["rows"] == []


def test_numbers_of_numpy_and_such_that_are_not_finite_are_written(tmp_path):
    row = {"on": True, "loss": np.float32(1.23456789), "failed": math.nan, "all": [np.inf, 2]}
    write_json(tmp_path / "row.json", row)
    written = json.loads((tmp_path / "row.json").read_text(), parse_constant=pytest.fail)
    expected = {"on": True, "loss": pytest.approx(1.2345679), "failed": None, "all": [None, 2]}
    assert written == expected


LONG = Report("a", "b", [{"a": 1}] * 2000)


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("a.json.tmp", lambda path: write_json(path.with_suffix(""), [])),
        ("report.csv", lambda path: write_report(path.parent, LONG)),
        ("a.png", lambda path: plot_fields(path, np.eye(2)[:, :1], {"": {"a": np.ones(2)}})),
    ],
)
def test_a_full_disk_names_the_file(name, write, tmp_path):
    """All goes to a device that is always full."""
    (tmp_path / name).symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left") as caught:
        write(tmp_path / name)
    assert caught.value.errno == errno.ENOSPC
    assert caught.value.filename.endswith(name)


NAMES = ["$\\frac{a$", "$\\a$", "1 $ and \\$2", "_a", "$x_1$"]
# A line, a single point, none, one that falls with a number that is none, and no number at all.
CURVES = {
    "line": [Curve("a", [0, 1], [2, 3])],
    "few": [Curve("a", [0], [1]), Curve("b", [], [])],
    "falls": [Curve("a", [2, 1], [3.0, np.nan]), Curve("c", [1], [0])],
    "nothing": [Curve("a", [2, 1], [np.nan] * 2), Curve("b", [1], [np.nan])],
    "empty": [],
}


@pytest.fixture
def drawn(monkeypatch):
    """The axes of figures that are saved; they are laid out, which reads their texts."""
    saved = []

    def savefig(figure, *_, **__):
        figure.draw_without_rendering()
        saved.append(figure.axes)

    monkeypatch.setattr(plots.Figure, "savefig", savefig)
    return saved


@pytest.mark.filterwarnings("ignore:Data has no positive values")
def test_curves_of_any_kind_are_drawn():
    figure = draw_panels(CURVES, x="step", y="loss", log="xy")
    figure.draw_without_rendering()
    axes = figure.axes
    assert [x.get_title() for x in axes] == [*CURVES]
    # No factor of ten is spanned.
    assert {x.get_yscale() for x in axes} == {"linear"}
    # A point alone is seen.
    assert [x.get_marker() for x in (*axes[0].lines, *axes[1].lines)] == ["", "o", ""]


def test_a_figure_shows_a_name_as_it_is(tmp_path, drawn):
    """Matplotlib would read mathematics between two dollars."""
    curves, first, second, third, *_ = [Curve(name, [1, 2], [1, 2]) for name in NAMES], *NAMES
    figures.plot_panels(tmp_path / "a.png", {first: curves, second: curves}, x=third, y=first)
    ((axes, last),) = drawn
    shown = axes.get_title(), axes.get_xlabel(), axes.get_ylabel()
    assert shown == tuple(map(plots.literal, (first, third, first)))
    shown = [text.get_text() for text in last.figure.legends[0].get_texts()]
    assert shown == [*map(plots.literal, NAMES)]


def test_a_page_needs_nothing_but_itself(tmp_path):
    figure = draw_panels({"a & b": [Curve("run", [1, 2], [1, 2])]}, x="step", y="loss")
    rows = [{"run": "<b>", "loss": 1.5}, {"run": "other"}]
    figures, texts = {"Losses < 3.": figure}, {"t": "x < y\n"}
    path = tmp_path / "page.html"
    write_page(path, "Two & more", "About <them>.", [Part("One", "", figures, rows, texts)])
    text = path.read_text(encoding="utf-8")
    ((kind, drawing),) = re.findall(r'src="data:(.*?);base64,(.*?)"', text)
    assert kind == "image/svg+xml" and b"<svg" in base64.b64decode(drawing)
    assert len(re.findall(r"(?:src|href|url)\s*[=(]", text.replace(drawing, ""))) == 1
    assert "<script" not in text and "@import" not in text and "http" not in text
    assert "About &lt;them&gt;." in text and "x &lt; y" in text and "Losses &lt; 3." in text
    assert "<td>&lt;b&gt;</td>" in text and "<td>1.5</td>" in text
