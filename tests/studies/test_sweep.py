"""Keys that are tuned for each scheme of a comparison."""

import math

import pytest

from ide_transformer.studies.schemes.sweep import Sweep, Trial, tuned


RATE, DECAY = "optimizer.learning_rate", "optimizer.weight_decay"


def searched(sweep, loss, *possible):
    """The result, and the values that were tried, in order."""
    tried = []

    def measured(trial):
        tried.append(trial.values)
        return loss(*trial.values)

    return tuned("scheme", sweep, 3, measured, *possible), tried


@pytest.mark.parametrize(
    ("best", "added", "at_edge"),
    [
        (2.0, [], []),
        (8.0, [8.0, 16.0], []),
        (100.0, [8.0, 16.0], [RATE]),
        (0.5, [0.5, 0.25], []),
    ],
)
def test_values_go_on_where_the_best_is_at_the_edge(best, added, at_edge):
    sweep = Sweep(keys={RATE: [1.0, 2.0, 4.0]}, extend=2)
    found, tried = searched(sweep, lambda rate: abs(math.log(rate / best)))
    assert [rate for (rate,) in tried] == [1.0, 2.0, 4.0, *added]
    assert found.at_edge == at_edge and found.losses[found.best] == min(found.losses.values())
    assert (found.best.scheme, found.best.seed) == ("scheme", 3)


def test_several_keys_are_combined_and_extended_each():
    sweep = Sweep(keys={RATE: [1.0, 2.0, 4.0], DECAY: [1.0, 3.0]}, extend=1)
    found, tried = searched(sweep, lambda rate, decay: abs(rate - 2) + abs(decay - 9))
    assert found.best.values == (2.0, 9.0) and found.at_edge == [DECAY]
    assert len(tried) == len(set(tried)) == 9


def test_values_go_on_as_far_as_a_run_can_have_them():
    sweep = Sweep(keys={RATE: [1.0, 2.0], DECAY: [1.0, 2.0, 4.0]}, extend=1)
    found, tried = searched(
        sweep,
        lambda rate, decay: abs(rate - 4) + abs(decay - 2),
        lambda trial: sum(trial.values) < 8,
    )
    assert found.best.values == (4.0, 2.0) and (4.0, 4.0) not in tried
    assert len(tried) == 8 and found.at_edge == [RATE]


def test_integers_stay_integers():
    sweep = Sweep(keys={"model.depth": [4, 8]}, extend=2)
    found, tried = searched(sweep, lambda depth: -depth)
    assert [depth for (depth,) in tried] == [4, 8, 16, 32]
    assert all(type(depth) is int for (depth,) in tried)
    assert found.best.name == "scheme-32-seed3"


def test_what_ends_the_search():
    """A folder of the same name: 1.0004² / 1.0006 is called 1, as 1.0004 is. Runs that diverge;
    and no keys."""
    found, tried = searched(Sweep(keys={RATE: [1.0004, 1.0006]}), lambda rate: rate)
    assert len(tried) == 2 and found.at_edge == [RATE]
    found, tried = searched(Sweep(keys={RATE: [1.0, 2.0]}), lambda rate: math.inf)
    assert len(tried) == 2 and math.isinf(found.losses[found.best]) and found.at_edge == []
    found, tried = searched(None, lambda: 1.0)
    assert found.best == Trial("scheme", (), 3) and tried == [()]
