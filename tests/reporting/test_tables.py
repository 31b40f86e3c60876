import csv
import errno
import json
import math

import numpy as np
import pytest

from ide_transformer import figures
from ide_transformer.reporting import Report, show_table, write_json, write_report
from ide_transformer.training.metrics import TrainingProgress


def test_a_report_says_the_same_in_every_form(tmp_path, capsys):
    rows = [
        {"scheme": "euler [no recipe]", "loss": 0.123456, "steps": 20_000, "seeds": [0.5, 2.0]},
        {"scheme": "heun", "loss": None, "steps": 2, "seeds": [], "why": "a | b\n[/tmp/x]"},
    ]
    named = {"seeds": "loss of each seed"}
    write_report(tmp_path, Report("small", "About it.", rows, named))
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
    show_table(rows, named)
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


def test_progress_and_lines_beside_it_are_said_where_there_is_no_terminal(capsys):
    with TrainingProgress(4, 0) as progress:
        progress.say("[/tmp/x] [bold]")
        for step in (1, 2):
            progress.show({"step": step, "loss": 2.0, "tokens_per_second": 1e4})
        progress.show({"step": 3, "validation_loss": 1.5})
    said = capsys.readouterr().out.splitlines()
    # The second step comes within five seconds of the first.
    assert [line.split() for line in said] == [
        ["[/tmp/x]", "[bold]"],
        ["step", "1/4", "loss", "2.0000", "10,000", "tokens/s"],
        ["step", "3/4", "validation_loss", "1.5000"],
    ]


LONG, FIELD = Report("a", "b", [{"a": 1}] * 2000), {"a": np.ones(2)}


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("a.json.tmp", lambda path: write_json(path.with_suffix(""), [])),
        ("report.csv", lambda path: write_report(path.parent, LONG)),
        ("a.html.tmp", lambda path: figures.write_page(path.with_suffix(""), "a", "b", [])),
        (
            "a.png",
            lambda path: figures.plot_fields(path, np.eye(2)[:, :1], [{"a": np.ones(2)}]),
        ),
    ],
)
def test_a_full_disk_names_the_file(name, write, tmp_path):
    """All goes to a device that is always full."""
    (tmp_path / name).symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left") as caught:
        write(tmp_path / name)
    assert caught.value.errno == errno.ENOSPC
    assert caught.value.filename.endswith(name)
