"""Weights of a run solved by many schemes, orders of convergence, and a page on runs."""

import html
import json
import os
import time

import numpy as np
import pytest
import yaml
from matplotlib.figure import Figure

import ide_transformer as ide
from ide_transformer.compare.convergence import find_scheme, measure_order
from ide_transformer.figures import save_figure
from ide_transformer.training import run_task
from tests.running import run_here, write_run
from tests.solvers.linear_problem import initial_state, matrices, tied_equation


@pytest.mark.heavy
def test_schemes_solve_the_weights_of_a_run(tiny_run, tmp_path, capsys):
    """The equation of the run is `u' = -c u`: a step multiplies by `1 - c h`, and of Heun's
    method by `1 - c h + (c h)² / 2`."""
    tree = {
        **{"mode": "solve", "run": str(tiny_run), "samples": 4, "rounds": 2},
        **{"reference": {"kind": "rk4", "steps": 64}, "tolerance": 0.01},
        "schemes": {
            "euler": {"solver": "euler", "steps": [1]},
            "heun": {"solver": "heun", "steps": [1]},
            "adaptive": {"solver": "tsit5", "tolerances": [0.01]},
        },
    }
    path, folder = tmp_path / "small.yaml", tmp_path / "compare/small"
    path.write_text(yaml.safe_dump(tree, sort_keys=False))
    command = "compare", path, "--runs", tmp_path / "compare"
    assert run_here(capsys, *command).count(": measured\n") == 3
    report = json.loads((folder / "report.json").read_text())
    rows = report["rows"]
    model, run = ide.load_run(tiny_run)
    assert "at step 3 (" in report["about"] and "on 4 samples of 8 tokens" in report["about"]
    # Evenly spread over the part.
    task = run_task(run)
    u0 = np.asarray(model.inputs.embed(next(task.held_out(4, 4)).inputs)[0])
    assert len(list(task.held_out(1))) > 8
    c = np.asarray(model.control.blocks[0].rate, np.float64)  # [layers, features]
    exact = u0 * np.prod(np.exp(-c), axis=0)
    factors = 1 - c, 1 - c + c**2 / 2
    for row, factor in zip(rows, factors, strict=False):
        error = np.linalg.norm(u0 * np.prod(factor, axis=0) - exact) / np.linalg.norm(exact)
        assert row["error"] == pytest.approx(error, rel=1e-3)
    assert [row["field_evaluations"] for row in rows[:2]] == [4, 8]
    assert all(row["mebibytes"] > 0 and row["milliseconds"] > 0 for row in rows)
    assert (folder / "work_precision_field_evaluations.png").exists()
    assert run_here(capsys, *command).count(": stored\n") == 3
    # A reference that is no better than what it judges is refused.
    poor = {"reference": {"kind": "euler", "steps": 2}, "tolerance": 1e-6}
    path.write_text(yaml.safe_dump({**tree, **poor}))
    assert "above tolerance=1e-06" in run_here(capsys, *command, expected=2)


END = {"validation_loss": 1.25, "validation_exact_match": 0.0, "bad_steps": 0}
END |= {"steps": 3, "nfe": 2, "parameters": 7, "seconds": 1.0}
PNG = b"\x89PNG\r\n\x1a\n"


def test_a_page_shows_what_runs_logged_drew_and_wrote(tmp_path, capsys):
    smooth = write_run(tmp_path / "smooth", solver="nesterov", losses=[3.0, 2.0, 1.5], **END)
    going = write_run(tmp_path / "going_on", solver="rk4", losses=[3.5, 2.5])
    (smooth / "sample.txt").write_bytes(b"To <be\xff\n")
    save_figure(Figure(), smooth / "plots/state_norm.png")
    (smooth / "plots/<i>\x1b.png").write_bytes(PNG)
    page = tmp_path / "report.html"
    run_here(capsys, "report", smooth, going, "--output", page)
    text = page.read_text(encoding="utf-8")
    assert "Not finished: going_on." in text and html.escape("To <be\ufffd") in text
    assert "<td>1.25</td>" in text and "<td>2.5</td>" in text and "nesterov" in text
    assert "validation exact match</th>" in text and "bad steps</th>" not in text
    assert text.count("data:image/png") == 2 and 'alt="smooth, state norm"' in text
    assert "<i>" not in text and "\x1b" not in text
    assert "<th>smooth</th><th>going_on</th>" in text
    assert text.count("data:image/svg+xml") == 1


def link(target):
    return lambda path: path.symlink_to(target)


def content(text):
    return lambda path: path.write_bytes(text)


def write_8_gib(path):
    path.write_bytes(PNG)
    os.truncate(path, 2**33)


LOG, FIGURE = "metrics.jsonl", "plots/a.png"
# A file of a run of somebody else, and what it became.
HARMFUL = [
    *((LOG, os.mkfifo), (LOG, link("/dev/zero")), (LOG, content(b"[" * 100_000 + b"\n"))),
    *((LOG, content(b'{"step": 1, "loss": %s}\n' % x)) for x in (b'{"a": 1}', b"9" * 400)),
    ("summary.json", content(b'{"seconds": {"a": 1}}')),
    ("fingerprints.json", content(b'{"sources": 3}')),
    *((FIGURE, write_8_gib), (FIGURE, link("/etc/hostname")), (FIGURE, content(b"<script>"))),
    ("sample.txt", link("../secret.txt")),
]


@pytest.mark.parametrize(("file", "change"), HARMFUL)
def test_no_page_is_made_of_harmful_files(file, change, tmp_path, capsys):
    run, other = (write_run(tmp_path / x, solver="rk4", losses=[2.0], **END) for x in "ab")
    (tmp_path / "secret.txt").touch()
    (run / file).unlink(missing_ok=True)
    change(run / file)
    began = time.process_time()
    output = run_here(capsys, "report", run, other, "--output", tmp_path / "page", expected=2)
    assert time.process_time() - began < 5
    assert len(output.splitlines()) == 1 and file in output
    assert {x.name for x in tmp_path.iterdir()} == {"a", "b", "secret.txt"}


def test_a_scheme_and_an_equation_of_your_own_are_measured():
    problem = dict(equation=tied_equation(*matrices(2)), u0=initial_state())
    row = measure_order("tests.training.mine:MyHeun", **problem)
    assert row.control == "Tied" and abs(row.observed_order - row.expected_order) < 0.15
    with pytest.raises(ide.InputError, match="pass both equation and u0"):
        measure_order("strang(heun)", equation=problem["equation"])
    assert find_scheme("residual(tests.training.mine:MyHeun)")[1].sphere is None


@pytest.mark.heavy
def test_the_table_of_orders(tmp_path, capsys):
    """Strang with Euler: the sub-steps are what is wrong; with RK4, the splitting."""
    table, figure = tmp_path / "orders.json", tmp_path / "orders.png"
    expected = {"strang(euler)": 1, "strang(rk4)": 2}
    options = [x for scheme in expected for x in ("--scheme", scheme)]
    files = ["--constraint", "free", "--json", str(table), "--figure", str(figure)]
    arguments = [*options, "--control", "piecewise_constant", *files]
    run_here(capsys, "convergence", *arguments)
    rows = {row["scheme"]: row for row in json.loads(table.read_text())}
    assert {name: row["expected_order"] for name, row in rows.items()} == expected
    for row in rows.values():
        assert abs(row["observed_order"] - row["expected_order"]) < 0.15
        assert (row["control"], row["constraint"]) == ("piecewise_constant", "free")
    euler, rk4 = rows.values()
    assert euler["sub_step_error"] > 20 * euler["splitting_error"]
    assert rk4["splitting_error"] > 20 * rk4["sub_step_error"]
    assert figure.exists()
