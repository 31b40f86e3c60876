"""The order of every scheme, measured in float64, as `scripts/convergence.py` does."""

import json

import pytest
from helpers import fast_first
from running import run_here

import ide_transformer as ide
from ide_transformer.studies.convergence import applies, find_scheme, measure_order, schemes
from ide_transformer.training import SchemeConfig


LAYERS = "piecewise_constant"


def check(row):
    # The range of schemes of order five and more ends at rounding.
    bound = 0.4 if row.expected_order >= 5 else 0.15
    assert abs(row.observed_order - row.expected_order) < bound, row
    if row.constraint != "free":
        assert row.constraint_residual < 1e-12


# The kinds of schemes whose marches differ; the heavy tests measure every scheme.
QUICK = [
    ("heun", "sphere"),
    ("lie_trotter(euler)", "sphere"),
    ("algebraically_reversible(strang(heun))", "free"),
]


@pytest.mark.parametrize(("scheme", "constraint"), fast_first(1, QUICK))
def test_order_of_each_kind(scheme, constraint):
    check(measure_order(scheme, LAYERS, constraint))


# Every eighth; all of them with `--thorough`.
SOME = [*schemes()][::8]


@pytest.mark.heavy
@pytest.mark.parametrize(
    "scheme", fast_first(0, dict.fromkeys([*SOME, *schemes()]), heavy=len(SOME))
)
def test_order_of_every_scheme(scheme):
    check(measure_order(scheme, LAYERS, "free" if applies(scheme, "free") else "sphere"))


# Chebyshev polynomials are in the table of orders, for a splitting too.
@pytest.mark.heavy
@pytest.mark.parametrize(
    ("scheme", "control"),
    fast_first(
        0,
        [
            ("rk4", "piecewise_linear"),
            ("strang(heun)", "piecewise_linear"),
            ("rk4", "chebyshev"),
            ("heun", "fourier"),
            ("midpoint", "hypernetwork"),
            ("leapfrog", "chebyshev"),
            ("etdab2", "chebyshev"),
        ],
        heavy=1,
    ),
)
def test_order_on_smooth_controls(scheme, control):
    check(measure_order(scheme, control, "free"))


@pytest.mark.heavy
@pytest.mark.parametrize(
    ("scheme", "constraint"),
    fast_first(
        0,
        [("rk4", "rms_sphere"), ("strang(heun)", "sphere"), ("adams_bashforth(2)", "sphere")],
        heavy=1,
    ),
)
def test_order_on_a_constraint(scheme, constraint):
    check(measure_order(scheme, LAYERS, constraint))


@pytest.mark.heavy
def test_the_splitting_of_the_paper_converges_only_in_its_consistent_variant():
    printed = measure_order("paper_splitting", LAYERS, "sphere")
    consistent = measure_order("consistent_paper_splitting", LAYERS, "sphere")
    check(printed)
    check(consistent)
    assert printed.errors[-1] > 10 * consistent.errors[-1]


@pytest.mark.thorough
@pytest.mark.heavy
def test_the_parts_of_an_error():
    """Strang with Euler: the sub-steps are what is wrong; with RK4, the splitting."""
    euler = measure_order("strang(euler)", "chebyshev", "free")
    rk4 = measure_order("strang(rk4)", "chebyshev", "free")
    assert euler.sub_step_error > 20 * euler.splitting_error
    assert rk4.splitting_error > 20 * rk4.sub_step_error


@pytest.mark.heavy
def test_the_table_of_orders(tmp_path, capsys):
    table, figure = tmp_path / "orders.json", tmp_path / "orders.png"
    options = ["--scheme", "strang(heun)", "--scheme", "rk4", "--control", "chebyshev"]
    files = ["--constraint", "free", "--json", str(table), "--figure", str(figure)]
    output = run_here(capsys, "convergence.py", *options, *files)
    rows = json.loads(table.read_text())
    assert [(row["scheme"], row["expected_order"]) for row in rows] == [
        ("strang(heun)", 2),
        ("rk4", 4),
    ]
    assert all(abs(row["observed_order"] - row["expected_order"]) < 0.15 for row in rows)
    assert rows[0]["splitting_error"] > 0 and rows[1]["splitting_error"] is None
    assert {(row["control"], row["constraint"]) for row in rows} == {("chebyshev", "free")}
    assert figure.exists() and "strang(heun)" in output


def test_a_scheme_is_spelled_as_in_configurations():
    for text, name in (
        ("strang", "strang(heun)"),
        ("adams_bashforth", "adams_bashforth(2)"),
        ("algebraically_reversible(strang)", "algebraically_reversible(strang(heun))"),
    ):
        assert find_scheme(text) == (name, schemes()[name])
    for name in schemes():
        scheme = name.removesuffix(", exact damping")
        assert str(SchemeConfig.model_validate(scheme)) == scheme


def test_a_scheme_that_is_not_known_is_refused(capsys):
    with pytest.raises(ide.InputError, match=r"--scheme rk5: it is not .* Known: euler"):
        applies("rk5", "free")
    output = run_here(capsys, "convergence.py", "--scheme", "rk5", expected=2)
    assert "error: --scheme rk5" in output
    apart = ["--scheme", "paper_splitting", "--constraint", "free"]
    output = run_here(capsys, "convergence.py", *apart, expected=2)
    assert "None of these schemes can be measured on these constraints" in output
    assert "adams_bashforth(3); leapfrog" in run_here(capsys, "convergence.py", "--help")


@pytest.mark.heavy
@pytest.mark.parametrize(
    ("scheme", "constraint"),
    fast_first(
        0,
        [("parallel_splitting(euler)", "sphere"), ("half_solver(lie_trotter(euler))", "free")],
        heavy=1,
    ),
)
def test_a_splitting_inside_of_a_wrapper_has_its_error(scheme, constraint):
    row = measure_order(scheme, LAYERS, constraint)
    assert 0 < row.splitting_error < 1 and row.sub_step_error > 0
