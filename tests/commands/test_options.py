"""Options of scripts that measure are refused where they would say nothing."""

import pytest
from running import run_here


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--exit-for sample", "--exit-for goes with --exit."),
        ("--layers spread", "--layers goes with --mesh."),
        ("--mesh 8", "write key=value, for example intervals=2,4,8"),
        ("--mesh steps=8", "--mesh steps=8: unknown key steps"),
        ("--mesh intervals=0", "--mesh intervals=0: intervals=0: Input should be greater"),
        ("--rollout 4 --samples 8", "--samples says nothing beside --rollout; drop one."),
        ("--exit 0.1 --mesh intervals=2 --layers first", "--layers says nothing beside --exit"),
        ("--measure accuracy", "--measure goes with --figure."),
        ("--figure loss.png", "--figure goes with --exit or --mesh or"),
        ("--rollout 2 --mesh horizon=2", "--mesh says nothing beside --rollout"),
        ("--mesh intervals=2,3 --pictures flow.png", "--pictures are of one solve"),
        ("--text text.txt data.options.points=3", "data.options.points=3 says nothing beside"),
        ("--mesh intervals=2 --figure loss.txt", "loss.txt: a figure ends with .png, .pdf or"),
    ],
)
def test_options_that_say_nothing(capsys, options, message):
    assert message in run_here(capsys, "evaluate.py", "none", *options.split(), expected=2)


@pytest.mark.parametrize(
    ("script", "options", "message"),
    [
        ("resolution.py", "--random 1 --samples 2", "--figure and --samples are for the"),
        ("translate.py", "none --length-penalty 2", "--length-penalty goes with --beams"),
    ],
)
def test_options_of_other_scripts(capsys, script, options, message):
    assert message in run_here(capsys, script, *options.split(), expected=2)
