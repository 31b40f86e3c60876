import csv
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


@pytest.mark.parametrize("curves", [{"a": ([0, 1], [2, 3])}, {"a": ([0], [1]), "b": ([], [])}])
def test_plots_are_pictures(tmp_path, curves):
    plot_curves(tmp_path / "plots/curve.png", curves, x="step", y="loss")
    assert (tmp_path / "plots/curve.png").read_bytes().startswith(b"\x89PNG")


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
