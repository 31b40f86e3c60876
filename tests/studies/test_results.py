"""Differences of paired runs, and the rules that a comparison breaks."""

import numpy as np
import pytest

from ide_transformer.studies.schemes.results import broken_rules, paired_difference


RATE = "optimizer.learning_rate"
EQUAL = {"at_edge": None, "parameters": 100, "field_evaluations": 10}
ROWS = [{"scheme": "a", **EQUAL, "seeds": [1.0]}, {"scheme": "b", **EQUAL, "seeds": [2.0]}]
FAIR = {"seeds": 3, "swept": {RATE: (1.0, 2.0)}, "tested": True, "rows": ROWS}


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"seeds": 2}, "2 seeds: give three at least."),
        ({"swept": {"optimizer.weight_decay": (1.0, 2.0)}}, "No learning rate was tuned"),
        ({"tested": False}, "These data have no test part"),
        (
            {"rows": [ROWS[0], {**ROWS[1], "at_edge": RATE}]},
            "A better value may lie beyond those tried: b.",
        ),
        (
            {"rows": [ROWS[0], {**ROWS[1], "parameters": 2000}]},
            "Parameters differ, from 100 to 2,000.",
        ),
        (
            {"rows": [ROWS[0], {**ROWS[1], "field_evaluations": 20}]},
            "Field evaluations differ, from 10 to 20.",
        ),
        (
            {"samples": {"b": 128, "a": 248, "c": 128}},
            "Data or context differ from those of b, so losses are on other samples: a.",
        ),
        (
            {"rows": [ROWS[0], {"scheme": "b", "failure": "why"}]},
            "Failed, so without figures: b.",
        ),
    ],
)
def test_each_rule_that_is_broken_is_named(changes, sentence):
    assert broken_rules(**FAIR) == []
    (found,) = broken_rules(**FAIR | changes)
    assert found.startswith(sentence)


def test_the_interval_is_that_of_student():
    """t(0.975, 2) = 4.302653, from a table."""
    values, reference = [1.2, 1.5, 1.1], [1.0, 1.0, 1.0]
    mean, half_width = paired_difference(values, reference)
    assert mean == pytest.approx(0.8 / 3)
    spread = np.sqrt(sum((d - 0.8 / 3) ** 2 for d in (0.2, 0.5, 0.1)) / 2)
    assert half_width == pytest.approx(4.302653 * spread / np.sqrt(3), rel=1e-6)
    assert paired_difference([2.0], [1.5]) == (0.5, None)
