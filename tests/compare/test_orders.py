"""Orders of convergence of schemes."""

import json

import pytest

import ide_transformer as ide
from ide_transformer.compare.convergence import find_scheme, measure_order, schemes
from ide_transformer.training.configuration.reader import spell_scheme
from tests.running import run_here
from tests.solvers.linear_problem import initial_state, matrices, tied_equation


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


def test_a_scheme_is_spelled_as_in_configurations():
    assert find_scheme("strang") == ("strang(heun)", schemes()["strang(heun)"])
    for name in schemes():
        scheme = name.removesuffix(", exact damping")
        assert spell_scheme(scheme) == scheme
