"""Classification of sequences: ListOps."""

import jax
import numpy as np
import pytest

from ide_transformer import InputError, tasks
from ide_transformer.tasks.sequences import OPERATORS


def test_values_are_those_of_the_expressions():
    task = tasks.ListOps(40, shortest=6, longest=30, depth=3, arguments=4)
    batch = task.batch(2, 64, seed=1)
    tokens, mask, _ = batch.inputs
    assert tokens.shape == mask.shape == (64, 30) and task.sizes["classes"] == 10
    lengths = mask.sum(axis=1)
    assert lengths.min() >= 6 and (mask == (np.arange(30) < lengths[:, None])).all()
    names = [*map(str, range(10)), *OPERATORS, "]"]
    functions = {
        "MIN": min,
        "MAX": max,
        "MED": lambda x: int(np.median(x)),
        "SM": lambda x: sum(x) % 10,
    }
    for row, length, target in zip(tokens, lengths, batch.targets, strict=True):
        stack, deepest = [[]], 0
        for name in (names[i] for i in row[:length]):
            if name in functions:
                stack.append([functions[name]])
            elif name == "]":
                function, *members = stack.pop()
                assert 2 <= len(members) <= 4
                stack[-1].append(function(members))
            else:
                stack[-1].append(int(name))
            deepest = max(deepest, len(stack) - 1)
        assert stack == [[target]] and deepest <= 3
    again = task.batch(2, 64, seed=1)
    same = zip(jax.tree.leaves(batch), jax.tree.leaves(again), strict=True)
    assert all((x == y).all() for x, y in same)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"longest": 99}, "longest=99: the model sees model.context=40"),
        ({"shortest": 41}, "shortest=41, longest=40: of 1000 .* 0 have such a length"),
        ({"depth": 1, "arguments": 2, "shortest": 5}, "shortest=5, .* 0 have such a"),
        ({"arguments": 1}, "arguments=1: arguments should be greater than or equal to 2"),
        ({"digits": 1.0}, r"digits=1\.0: digits should be less than 1"),
        # These were drawn for ever.
        (
            {"context": 1024, "shortest": 512},
            r"shortest=512, longest=1024: of 1000 .* 0 have .*Lower shortest",
        ),
        ({"longest": 4, "shortest": 4, "digits": 0.01}, r"longest=4: .*raise longest"),
    ],
)
def test_wrong_expressions(options, message):
    with pytest.raises(InputError, match=message):
        tasks.ListOps(**({"context": 40} | options))


def test_a_single_length_is_drawn():
    batch = tasks.ListOps(64, shortest=16, longest=16).batch(0, 2, seed=0)
    assert batch.inputs.mask.all()
