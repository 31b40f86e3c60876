"""Files that cannot be written are named. All go to a device that is always full."""

import errno

import numpy as np
import pytest

from ide_transformer import figures
from ide_transformer.reporting import Report, write_json, write_report
from ide_transformer.training.trackers import JsonLines


ROWS, FIELD = [{"loss": 1.0}], {"a": np.ones(2)}


def logged(path):
    tracker = JsonLines(path)
    tracker.start(path.parent, {}, 0)
    tracker.log(1, {"loss": 0.5})


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("a.json.tmp", lambda path: write_json(path.with_suffix(""), ROWS)),
        ("report.csv", lambda path: write_report(path.parent, Report("a", "b", ROWS * 2000))),
        ("a.html.tmp", lambda path: figures.write_page(path.with_suffix(""), "a", "b", [])),
        ("a.png", lambda path: figures.plot_fields(path, np.eye(2)[:, :1], [FIELD])),
        ("metrics.jsonl", logged),
    ],
)
def test_a_full_disk_names_the_file(name, write, tmp_path):
    (tmp_path / name).symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left") as caught:
        write(tmp_path / name)
    assert caught.value.errno == errno.ENOSPC
    assert caught.value.filename.endswith(name)
