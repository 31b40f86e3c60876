"""The rules that a comparison breaks are named in its report."""

import pytest

from ide_transformer.studies.schemes.results import broken_rules


RATE = "optimizer.learning_rate"
ROWS = [
    {
        "scheme": "a",
        "at_edge": None,
        "parameters": 100,
        "field_evaluations": 10,
        "seeds": [1.0],
    },
    {
        "scheme": "b",
        "at_edge": None,
        "parameters": 100,
        "field_evaluations": 10,
        "seeds": [2.0],
    },
]
FAIR = {"seeds": 3, "swept": {RATE: (1.0, 2.0)}, "tested": True, "rows": ROWS}


def test_a_fair_comparison_breaks_none():
    assert broken_rules(**FAIR) == []


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"seeds": 1}, "One seed: give three at least."),
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
    (found,) = broken_rules(**{**FAIR, **changes})
    assert found.startswith(sentence)
