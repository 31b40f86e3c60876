"""Options of scripts that measure are refused where they would say nothing."""

import pytest
from running import run_here


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--exit-for sample", "--exit-for goes with --exit."),
        ("--mesh spread", "--mesh goes with --steps."),
        ("--rollout 4 --samples 8", "--samples says nothing beside --rollout; drop one."),
        ("--contexts 8,16 --context 8", "--context says nothing beside --contexts"),
        ("--exit 0.1 --steps 2 --mesh first", "--mesh says nothing beside --exit"),
        ("--measure accuracy", "--measure goes with --figure."),
        ("--figure loss.png", "--figure goes with --exit or --steps or"),
        ("--exit 0.1 --horizons 2", "--exit and --horizons do not go together"),
        ("--steps 2 --pictures flow.png", "--steps and --pictures do not go together"),
        ("--text text.txt data.options.points=3", "data.options.points=3 says nothing beside"),
        ("--steps 2 --figure loss.txt", "loss.txt: a figure ends with .png, .pdf or .svg"),
    ],
)
def test_options_that_say_nothing(capsys, options, message):
    assert message in run_here(capsys, "evaluate.py", "none", *options.split(), expected=2)


@pytest.mark.parametrize(
    ("script", "options", "message"),
    [
        ("resolution.py", "--random 1 --steps 2", "--steps says nothing beside --random"),
        ("resolution.py", "none --part validation", "--part says nothing beside the errors"),
        ("translate.py", "none --length-penalty 2", "--length-penalty goes with --beams"),
    ],
)
def test_options_of_other_scripts(capsys, script, options, message):
    assert message in run_here(capsys, script, *options.split(), expected=2)
