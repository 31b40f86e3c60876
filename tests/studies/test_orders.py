"""The order of every scheme, measured in float64, as `scripts/convergence.py` does."""

import pytest

from ide_transformer.studies.convergence import applies, measure_order, schemes


def check(row):
    # The range of schemes of order five and more ends at rounding.
    bound = 0.4 if row.expected_order >= 5 else 0.15
    assert abs(row.observed_order - row.expected_order) < bound, row
    if row.constraint != "free":
        assert row.constraint_residual < 1e-12


# One or two of each family.
QUICK = [
    *("euler", "bosh3", "tsit5", "lie_trotter(euler, exact damping)"),
    *("parallel_splitting(heun)", "residual(gated_rk2)"),
    *("velocity(euler)", "adams_bashforth(3)", "leapfrog"),
    *("presymplectic_euler", "exponential_euler", "etdab2", "implicit_midpoint"),
]


@pytest.mark.parametrize("scheme", QUICK)
def test_order_on_layers(scheme):
    check(measure_order(scheme, "piecewise_constant", "free"))


@pytest.mark.heavy
@pytest.mark.parametrize("scheme", [s for s in schemes() if s not in QUICK])
def test_order_of_every_other_scheme(scheme):
    constraint = "free" if applies(scheme, "free") else "sphere"
    check(measure_order(scheme, "piecewise_constant", constraint))


@pytest.mark.parametrize(
    ("scheme", "control"),
    [
        ("strang(heun)", "piecewise_linear"),
        ("rk4", "chebyshev"),
        ("heun", "fourier"),
        ("midpoint", "hypernetwork"),
        ("leapfrog", "chebyshev"),
        ("etdab2", "chebyshev"),
    ],
)
def test_order_on_smooth_controls(scheme, control):
    check(measure_order(scheme, control, "free"))


@pytest.mark.parametrize(
    ("scheme", "constraint"),
    [
        ("lie_trotter(euler)", "sphere"),
        ("strang(heun)", "sphere"),
        ("adams_bashforth(2)", "sphere"),
        ("rk4", "rms_sphere"),
    ],
)
def test_order_on_a_constraint(scheme, constraint):
    check(measure_order(scheme, "piecewise_constant", constraint))


def test_the_splitting_of_the_paper_converges_only_in_its_consistent_variant():
    printed = measure_order("paper_splitting", "piecewise_constant", "sphere")
    consistent = measure_order("consistent_paper_splitting", "piecewise_constant", "sphere")
    check(printed)
    check(consistent)
    assert printed.errors[-1] > 10 * consistent.errors[-1]


@pytest.mark.heavy
def test_the_parts_of_an_error():
    """Strang with Euler: the sub-steps are what is wrong; with RK4, the splitting."""
    euler = measure_order("strang(euler)", "chebyshev", "free")
    rk4 = measure_order("strang(rk4)", "chebyshev", "free")
    assert euler.sub_step_error > 20 * euler.splitting_error
    assert rk4.splitting_error > 20 * rk4.sub_step_error
