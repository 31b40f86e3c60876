"""Differences of paired runs."""

import numpy as np
import pytest

from ide_transformer.studies.schemes.results import paired_difference


def test_the_interval_is_that_of_student():
    """t(0.975, 2) = 4.302653, from a table."""
    values, reference = [1.2, 1.5, 1.1], [1.0, 1.0, 1.0]
    mean, half_width = paired_difference(values, reference)
    assert mean == pytest.approx(0.8 / 3)
    spread = np.sqrt(sum((d - 0.8 / 3) ** 2 for d in (0.2, 0.5, 0.1)) / 2)
    assert half_width == pytest.approx(4.302653 * spread / np.sqrt(3), rel=1e-6)


def test_what_both_share_has_no_part_in_it():
    seeds = np.random.default_rng(0).normal(size=8)
    mean, half_width = paired_difference((seeds + 0.25).tolist(), seeds.tolist())
    assert mean == pytest.approx(0.25) and half_width < 1e-12


def test_a_single_pair_has_no_interval():
    assert paired_difference([2.0], [1.5]) == (0.5, None)
