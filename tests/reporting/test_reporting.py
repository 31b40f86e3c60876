import csv
import json
import math

import numpy as np
import pytest

from ide_transformer.figures import (
    Curve,
    plot_curves,
    plot_fields,
    plot_intervals,
    plot_panels,
    plots,
)
from ide_transformer.reporting import Report, show_table, write_json, write_report


@pytest.mark.filterwarnings("ignore:Data has no positive values")
@pytest.mark.parametrize("log", ["", "x", "xy"])
@pytest.mark.parametrize(
    "curves",
    [
        {"a": ([0, 1], [2, 3])},
        {"a": ([0], [1]), "b": ([], [])},
        {"a": ([2, 1], [3.0, float("nan")]), "b": ([1], [0])},
        {"a": ([2, 1], [float("nan")] * 2), "b": ([1], [float("nan")])},
        {},
    ],
)
def test_plots_are_pictures(tmp_path, curves, log):
    plot_curves(tmp_path / "plots/curve.png", curves, x="step", y="loss", log=log)
    assert (tmp_path / "plots/curve.png").read_bytes().startswith(b"\x89PNG")


def drawn(monkeypatch, draw):
    """The panels of a figure that is drawn."""
    figures = []
    monkeypatch.setattr(plots.Figure, "savefig", lambda self, *_, **__: figures.append(self))
    draw()
    return figures[0].axes


def test_each_line_has_a_look_and_a_label_of_its_own(tmp_path, monkeypatch):
    curves = {f"scheme {n}": ([1, 2, 3], [1, 1, 1 + n / 1000]) for n in range(10)}
    options = dict(x="step", y="loss")
    (axes,) = drawn(monkeypatch, lambda: plot_curves(tmp_path / "a.png", curves, **options))
    looks = {(line.get_color(), line.get_linestyle()) for line in axes.get_lines()}
    assert len(looks) == 10 and {color for color, _ in looks} == {*plots.COLORS}
    assert len(plots.COLORS) == 8
    assert [text.get_text() for text in axes.get_legend().get_texts()] == [*curves]


def test_a_single_point_is_seen(tmp_path, monkeypatch):
    curves = {"once": ([1], [2.0]), "twice": ([1, 2], [2.0, 3.0])}
    draw = lambda: plot_curves(tmp_path / "a.png", curves, x="step", y="loss")  # noqa: E731
    (axes,) = drawn(monkeypatch, draw)
    assert [line.get_marker() for line in axes.get_lines()] == ["o", ""]


def test_intervals_are_a_picture(tmp_path):
    path = tmp_path / "intervals.png"
    plot_intervals(path, {"one": (0.1, 0.02), "two": (-0.3, 0.2)}, x="difference")
    assert path.read_bytes().startswith(b"\x89PNG")


def test_a_wide_interval_leaves_room_for_the_others(tmp_path, monkeypatch):
    intervals = {"a": (0.1, 0.02), "b": (-0.1, 0.03), "c": (0.05, 0.05), "wide": (2.0, 5.0)}
    draw = lambda: plot_intervals(tmp_path / "a.png", intervals, x="difference")  # noqa: E731
    (axes,) = drawn(monkeypatch, draw)
    lower, upper = axes.get_xlim()
    assert -0.2 < lower < -0.13 and 0.12 < upper < 0.2
    figures = [text.get_text() for text in axes.texts]
    assert figures == ["+2.0 ± 5.0", "+0.100 ± 0.020", "+0.050 ± 0.050", "−0.100 ± 0.030"]


def test_panels_are_a_picture(tmp_path):
    curve = Curve("a", [1, 2], [3, 4])
    path = tmp_path / "panels.png"
    plot_panels(path, {"left": [curve], "right": [curve, curve]}, x="h", y="error", log="xy")
    assert path.read_bytes().startswith(b"\x89PNG")


def test_a_report_says_the_same_in_every_form(tmp_path, capsys):
    rows = [
        {"scheme": "euler", "loss": 0.123456, "steps": 20_000, "seeds": [0.5, 2.0]},
        {"scheme": "heun", "loss": None, "steps": 2, "seeds": []},
    ]
    report = Report("small", "About it.", rows)
    write_report(tmp_path, report)
    content = json.loads((tmp_path / "report.json").read_text())
    assert content == {"about": "About it.", "rows": rows}
    with (tmp_path / "report.csv").open(newline="") as file:
        assert [row["steps"] for row in csv.DictReader(file)] == ["20000", "2"]
    assert (tmp_path / "report.md").read_text().splitlines()[:7] == [
        "# small",
        "",
        "About it.",
        "",
        "| scheme | loss | steps | seeds |",
        "| --- | --- | --- | --- |",
        "| euler | 0.1235 | 20,000 | 0.5, 2 |",
    ]
    show_table(report.rows)
    assert "0.1235" in capsys.readouterr().out


def test_numbers_of_numpy_and_such_that_are_not_finite_are_written(tmp_path, capsys):
    row = {"on": True, "loss": np.float32(1.23456789), "failed": math.nan, "all": [np.inf, 2]}
    show_table([row])
    printed = capsys.readouterr().out
    assert "True" in printed and "1.235" in printed
    write_json(tmp_path / "row.json", row)
    written = json.loads((tmp_path / "row.json").read_text(), parse_constant=pytest.fail)
    expected = {"on": True, "loss": pytest.approx(1.2345679), "failed": None, "all": [None, 2]}
    assert written == expected


def test_a_cell_is_written_as_it_is(tmp_path, capsys):
    rows = [{"scheme": "euler [no recipe]", "failure": "a | b\n[/tmp/x]"}]
    show_table(rows)
    printed = capsys.readouterr().out
    assert "euler [no recipe]" in printed and "[/tmp/x]" in printed
    write_report(tmp_path, Report("small", "", rows))
    last = (tmp_path / "report.md").read_text().splitlines()[-1]
    assert last == "| euler [no recipe] | a \\| b [/tmp/x] |"


def test_a_legend_of_many_lines_is_on_the_figure(tmp_path, monkeypatch):
    curves = {str(i): ([1, 2], [1.0, i * 0.0]) for i in range(30)}
    curves |= {f"{i} higher": ([1, 2], [1.0, 1.0 + i]) for i in range(10)}
    draw = lambda: plot_curves(tmp_path / "a.png", curves, x="n", y="error", log="xy")  # noqa: E731
    (axes,) = drawn(monkeypatch, draw)
    axes.figure.draw_without_rendering()
    page = axes.figure.bbox
    places = [text.get_window_extent() for text in axes.get_legend().get_texts()]
    assert len(places) == 40
    assert all(page.y0 <= place.y0 and place.y1 <= page.y1 for place in places)


def test_a_table_without_rows_is_written(tmp_path, capsys):
    write_report(tmp_path, Report("nothing", "There was no time.", []))
    assert json.loads((tmp_path / "report.json").read_text())["rows"] == []
    assert "There was no time." in (tmp_path / "report.md").read_text()
    show_table([])
    assert capsys.readouterr().out.strip() == ""


@pytest.mark.parametrize("dimension", [1, 2])
def test_functions_are_drawn_with_one_scale_for_truth_and_prediction(
    tmp_path, monkeypatch, dimension
):
    random = np.random.default_rng(0)
    points, (truth, off) = random.random((12, dimension)), random.normal(size=(2, 12))
    row = {"truth": truth, "prediction": 9 + truth + off, "error": off}
    plot_fields(tmp_path / "plots/fields.png", points, [row, row])
    assert (tmp_path / "plots/fields.png").read_bytes().startswith(b"\x89PNG")
    if dimension == 2:
        panels = drawn(monkeypatch, lambda: plot_fields(tmp_path / "x.png", points, [row]))
        limits = [axes.collections[0].get_clim() for axes in panels[:3]]
        assert limits[0] == limits[1] == (truth.min(), truth.max())
        assert limits[2][0] == -limits[2][1]
