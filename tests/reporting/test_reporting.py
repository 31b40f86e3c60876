import csv
import itertools
import json

import numpy as np
import pytest

from ide_transformer import InputError
from ide_transformer.reporting import (
    Curve,
    Report,
    alternate,
    measure,
    plot_curves,
    plot_panels,
    plots,
    show_table,
    write_report,
)


def test_measure_sees_what_costs_more():
    x = np.ones((400, 400))

    def once(x):
        return x @ x

    def many(x):
        for _ in range(20):
            x = 0.1 * (x @ x)
        return x

    rounds = []
    found = measure(
        {"once": (once, (x,)), "many": (many, (x,))}, rounds=3, on_round=rounds.append
    )
    assert rounds == [0, 1, 2, 3]
    assert found["once"].time_ratio == 1 and found["once"].milliseconds > 0
    assert found["many"].milliseconds > found["once"].milliseconds
    assert found["many"].mebibytes >= 400 * 400 * 8 / 2**20 > found["once"].mebibytes


def test_turns_are_taken_once_a_round_and_the_first_round_does_not_count():
    seconds = {"a": iter([9.0, 1.0, 2.0, 3.0]), "b": iter([0.0, 4.0, 4.0, 6.0])}
    turns = {name: lambda given=given: next(given) for name, given in seconds.items()}
    found = alternate(turns, rounds=3)
    assert (found["a"].milliseconds, found["b"].milliseconds) == (2000, 4000)
    assert (found["a"].spread, found["b"].time_ratio) == (1.0, 2.0)
    with pytest.raises(InputError, match="rounds=1"):
        alternate(turns, rounds=1)


@pytest.mark.parametrize("log", [False, True])
@pytest.mark.parametrize(
    "curves",
    [
        {"a": ([0, 1], [2, 3])},
        {"a": ([0], [1]), "b": ([], [])},
        {"a": ([2, 1], [3.0, float("nan")]), "b": ([1], [0])},
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
    assert {text.get_text() for text in axes.texts} == {*curves}
    axes.figure.draw_without_rendering()
    boxes = sorted((text.get_window_extent() for text in axes.texts), key=lambda box: box.y0)
    assert all(low.y1 <= high.y0 + 1 for low, high in itertools.pairwise(boxes))


def test_a_single_point_is_seen(tmp_path, monkeypatch):
    curves = {"once": ([1], [2.0]), "twice": ([1, 2], [2.0, 3.0])}
    draw = lambda: plot_curves(tmp_path / "a.png", curves, x="step", y="loss")  # noqa: E731
    (axes,) = drawn(monkeypatch, draw)
    assert [line.get_marker() for line in axes.get_lines()] == ["o", ""]


def test_panels_are_a_picture(tmp_path):
    curve = Curve("a", [1, 2], [3, 4])
    path = tmp_path / "panels.png"
    plot_panels(path, {"left": [curve], "right": [curve, curve]}, x="h", y="error", log=True)
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
