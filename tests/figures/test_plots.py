import numpy as np
import pytest

from benchmarks.shared.report import plot_bars
from ide_transformer import figures
from ide_transformer.figures import Curve, draw_panels, plot_fields, plot_intervals, plots


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
@pytest.mark.parametrize("log", ["", "xy"])
def test_curves_of_any_kind_are_drawn(log):
    figure = draw_panels(CURVES, x="step", y="loss", log=log)
    figure.draw_without_rendering()
    axes = figure.axes
    assert [x.get_title() for x in axes] == [*CURVES] and axes[2].xaxis_inverted()
    # No factor of ten is spanned.
    assert {x.get_yscale() for x in axes} == {"linear"}
    # A point alone is seen.
    assert [x.get_marker() for x in (*axes[0].lines, *axes[1].lines)] == ["", "o", ""]


def test_every_figure_shows_a_name_as_it_is(tmp_path, drawn):
    """Matplotlib would read mathematics between two dollars."""
    line, path = ([1.0, 2.0], [1.0, 2.0]), tmp_path / "a.png"
    curves, first, second, third, *_ = [Curve(name, *line) for name in NAMES], *NAMES
    figures.plot_panels(path, {first: curves, second: curves}, x=third, y=first)
    ((axes, last),) = drawn
    shown = axes.get_title(), axes.get_xlabel(), axes.get_ylabel()
    assert shown == tuple(map(plots.literal, (first, third, first)))
    shown = [text.get_text() for text in last.figure.legends[0].get_texts()]
    assert shown == [*map(plots.literal, NAMES)]
    functions = dict.fromkeys(NAMES, np.arange(4.0))
    plot_intervals(path, {name: (n, 0.1) for n, name in enumerate(NAMES)}, x=first)
    plot_fields(path, np.arange(4.0)[:, None], [functions])
    plot_fields(path, np.array([[0, 0], [0, 1], [1, 0], [1, 1.0]]), [functions])
    plot_bars(path, NAMES[:2], {"seconds": ([1.0, 2.0], [0.1, 0.2])})
    assert len(drawn) == 5


def test_functions_have_one_scale_for_truth_and_prediction(tmp_path, drawn):
    random = np.random.default_rng(0)
    points, (truth, off) = random.random((12, 2)), random.normal(size=(2, 12))
    row = {"truth": truth, "prediction": 9 + truth + off, "error": off}
    plot_fields(tmp_path / "a.png", points, [row, row])
    plot_fields(tmp_path / "a.png", points[:, :1], [row, row])
    plane, line = drawn
    limits = [axes.collections[0].get_clim() for axes in plane[:3]]
    assert limits[0] == limits[1] == (truth.min(), truth.max())
    assert limits[2][0] == -limits[2][1]
    (x, y), order = line[1].lines[2].get_data(), np.argsort(points[:, 0])
    assert (x == points[order, 0]).all() and (y == off[order]).all()
