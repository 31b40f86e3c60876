import re

from helpers import ROOT


README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_readme_opens_with_the_two_commands_and_the_solver_call():
    first, second = re.findall(r"```(?:sh|python)\n(.*?)```", README, flags=re.S)[:2]
    assert "make train" in first and "make test" in first
    assert "ide.solve(equation, u0, solver=" in second


def test_the_example_of_the_readme_runs():
    example = next(
        code
        for code in re.findall(r"```python\n(.*?)```", README, flags=re.S)
        if "def make_block" in code
    )
    names: dict = {}
    exec(example, names)
    assert names["transformer"].u1.shape == (8, 128, 64)
    assert names["adaptive"].us.shape == (13, 8, 128, 64)
