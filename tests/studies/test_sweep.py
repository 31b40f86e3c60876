"""Keys that are tuned for each scheme of a comparison."""

import math

import pytest

from ide_transformer.studies.schemes.sweep import Sweep, Trial, tuned


RATE, DECAY = "optimizer.learning_rate", "optimizer.weight_decay"


def searched(sweep, loss):
    """The result, and the values that were tried, in order."""
    tried = []

    def measured(trial):
        tried.append(trial.values)
        return loss(*trial.values)

    return tuned("scheme", sweep, 3, measured), tried


def test_the_best_inside_is_taken_without_more():
    sweep = Sweep(keys={RATE: [1.0, 2.0, 4.0]})
    found, tried = searched(sweep, lambda rate: abs(rate - 2))
    assert found.best == Trial("scheme", (2.0,), 3) and found.at_edge == []
    assert tried == [(1.0,), (2.0,), (4.0,)]


@pytest.mark.parametrize(
    ("best", "added", "at_edge"),
    [(8.0, [8.0, 16.0], []), (100.0, [8.0, 16.0], [RATE]), (0.5, [0.5, 0.25], [])],
)
def test_values_go_on_where_the_best_is_at_the_edge(best, added, at_edge):
    sweep = Sweep(keys={RATE: [1.0, 2.0, 4.0]}, extend=2)
    found, tried = searched(sweep, lambda rate: abs(math.log(rate / best)))
    assert [rate for (rate,) in tried] == [1.0, 2.0, 4.0, *added]
    assert found.at_edge == at_edge and found.losses[found.best] == min(found.losses.values())


def test_several_keys_are_combined_and_extended_each():
    sweep = Sweep(keys={RATE: [1.0, 2.0, 4.0], DECAY: [1.0, 3.0]}, extend=1)
    found, tried = searched(sweep, lambda rate, decay: abs(rate - 2) + abs(decay - 9))
    assert found.best.values == (2.0, 9.0) and found.at_edge == [DECAY]
    assert len(tried) == len(set(tried)) == 9


def test_a_scheme_of_which_all_runs_diverge_is_not_extended():
    found, tried = searched(Sweep(keys={RATE: [1.0, 2.0]}), lambda rate: math.inf)
    assert len(tried) == 2 and math.isinf(found.losses[found.best]) and found.at_edge == []


def test_without_a_sweep_there_is_one_run():
    found, tried = searched(None, lambda: 1.0)
    assert found.best == Trial("scheme", (), 3) and tried == [()]
    assert found.best.name == "scheme-seed3"
