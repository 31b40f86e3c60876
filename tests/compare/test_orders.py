"""Orders of convergence of schemes."""

import json

import pytest

import ide_transformer as ide
from ide_transformer.compare.convergence import find_scheme, measure_order, schemes
from ide_transformer.training.configuration.reader import spelled_scheme
from tests.running import run_here
from tests.solvers.linear_problem import initial_state, matrices, tied_equation


LAYERS = "piecewise_constant"


def test_a_scheme_and_an_equation_of_your_own_are_measured():
    problem = dict(equation=tied_equation(*matrices(2)), u0=initial_state())
    row = measure_order("tests.training.mine:MyHeun", **problem)
    check(row)
    assert row.control == "Tied"
    with pytest.raises(ide.InputError, match="pass both equation and u0"):
        measure_order("strang(heun)", equation=problem["equation"])
    assert find_scheme("residual(tests.training.mine:MyHeun)")[1].sphere is None


def check(row):
    # The range of schemes of order five and more ends at rounding.
    bound = 0.4 if row.expected_order >= 5 else 0.15
    assert abs(row.observed_order - row.expected_order) < bound, row
    if row.constraint != "free":
        assert row.constraint_residual < 1e-12


@pytest.mark.heavy
@pytest.mark.thorough
def test_the_splitting_of_the_paper_converges_only_in_its_consistent_variant():
    printed = measure_order("paper_splitting", LAYERS, "sphere")
    consistent = measure_order("consistent_paper_splitting", LAYERS, "sphere")
    check(printed)
    check(consistent)
    assert printed.errors[-1] > 10 * consistent.errors[-1]


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


def test_a_scheme_is_spelled_as_in_configurations():
    assert find_scheme("strang") == ("strang(heun)", schemes()["strang(heun)"])
    for name in schemes():
        scheme = name.removesuffix(", exact damping")
        assert spelled_scheme(scheme) == scheme
