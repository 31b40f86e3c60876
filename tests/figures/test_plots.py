import base64
import re

import numpy as np
import pytest

from ide_transformer import figures
from ide_transformer.figures import Curve, Part, draw_panels, plot_fields, plots, write_page


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
    assert [x.get_title() for x in axes] == [*CURVES] and axes[2].xaxis_inverted()
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


def test_functions_have_one_scale_for_truth_and_prediction(tmp_path, drawn):
    random = np.random.default_rng(0)
    points, (truth, off) = random.random((12, 2)), random.normal(size=(2, 12))
    row = {"truth": truth, "prediction": 9 + truth + off, "error": off}
    plot_fields(tmp_path / "a.png", points, [row, row])
    (plane,) = drawn
    limits = [axes.collections[0].get_clim() for axes in plane[:3]]
    assert limits[0] == limits[1] == (truth.min(), truth.max())
    assert limits[2][0] == -limits[2][1]


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
