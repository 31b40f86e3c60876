"""Keys that are tuned for each scheme of a comparison."""

import math

import pytest

from ide_transformer.studies.schemes.sweep import Sweep, Trial, tuned


RATE, DECAY = "optimizer.learning_rate", "optimizer.weight_decay"


def off(*best):
    return lambda *values: sum(abs(math.log(x / y)) for x, y in zip(values, best, strict=True))


@pytest.mark.parametrize(
    ("keys", "extend", "loss", "most", "tried", "best", "at_edge"),
    [
        ({RATE: [1.0, 2.0, 4.0]}, 2, off(8.0), 99, 5, (8.0,), []),
        ({RATE: [1.0, 2.0, 4.0]}, 2, off(100.0), 99, 5, (16.0,), [RATE]),
        ({RATE: [1.0, 2.0, 4.0]}, 2, off(0.5), 99, 5, (0.5,), []),
        # As far as a run can have them.
        ({RATE: [1.0, 2.0, 4.0]}, 3, off(100.0), 10, 4, (8.0,), [RATE]),
        # Several keys are combined and extended each.
        ({RATE: [1.0, 2.0, 4.0], DECAY: [1.0, 3.0]}, 1, off(2, 9), 99, 9, (2.0, 9.0), [DECAY]),
        # Integers stay integers.
        ({"model.depth": [4, 8]}, 2, off(99), 99, 4, (32,), ["model.depth"]),
        # A further one would have the same folder: 1.0004² / 1.0006 is called 1, as 1.0004 is.
        ({RATE: [1.0004, 1.0006]}, 2, off(0.1), 99, 2, (1.0004,), [RATE]),
    ],
)
def test_values_go_on_where_the_best_is_at_the_edge(
    keys, extend, loss, most, tried, best, at_edge
):
    sweep, made = Sweep(keys=keys, extend=extend), []

    def measured(trial):
        made.append(trial.values)
        return loss(*trial.values)

    found = tuned("scheme", sweep, 3, measured, lambda trial: sum(trial.values) < most)
    assert found.best == Trial("scheme", best, 3) and found.at_edge == at_edge
    assert len(made) == len(set(made)) == tried
    assert list(map(type, found.best.values)) == list(map(type, best))
