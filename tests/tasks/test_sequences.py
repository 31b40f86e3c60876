import itertools
from typing import ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ide_transformer as ide
from ide_transformer import tasks
from ide_transformer.tasks.sequences import hopped
from ide_transformer.training.step import make_evaluation


TASKS = {
    "p_hop": tasks.PHop(16, alphabet=3, hops=2),
    "s3": tasks.WordProblem(12, (4, 8), (9, 12)),
    "s5": tasks.WordProblem(6, (1, 6), degree=5),
    "parity": tasks.Parity(13, (1, 8), (9, 12)),
    "addition": tasks.Addition(20, (1, 4), (5, 6)),
    "started": tasks.Addition(21, (1, 4), (5, 6), start=True),
    "columns": tasks.ColumnAddition(13, (1, 4), (5, 6)),
    "ternary": tasks.ColumnAddition(14, (1, 4), (3, 6), base=3, start=True),
    "written": tasks.Addition(20, (1, 4), (5, 6), reverse=False, base=3),
}
everyone = pytest.mark.parametrize("task", TASKS.values(), ids=TASKS.keys())


def held_out(task):
    batches = list(task.held_out(64))
    return [np.concatenate(x) for x in zip(*batches, strict=True)]


@everyone
def test_a_batch_is_a_function_of_seed_and_step(task):
    batch, again = task.batch(3, 32, 5), task.batch(3, 32, 5)
    assert isinstance(batch, tasks.Batch)
    assert batch.inputs.shape == batch.targets.shape == (32, task.tokens_per_sample)
    assert batch.inputs.dtype == batch.targets.dtype == np.int32
    assert all((x == y).all() for x, y in zip(batch, again, strict=True))
    assert batch.inputs.min() >= 0 and batch.inputs.max() < task.sizes["vocabulary"]
    assert batch.targets.min() >= -1 and batch.targets.max() < task.sizes["vocabulary"]
    for other in (task.batch(4, 32, 5), task.batch(3, 32, 6)):
        assert (other.inputs != batch.inputs).any()


@everyone
def test_held_out_samples_are_those_of_no_step(task, monkeypatch):
    streams = []
    drawn = np.random.default_rng

    def noted(seed):
        streams.append(drawn(seed).bit_generator.state["state"]["state"])
        return drawn(seed)

    monkeypatch.setattr(np.random, "default_rng", noted)
    inputs, targets = held_out(task)
    for seed, step in itertools.product((0, 1, 2**32 - 1), (0, 1, 2, 2**31 - 1)):
        task.batch(step, 1, seed)
    assert len(set(streams)) == len(streams) == 13
    assert len(inputs) == len(targets) == 1024
    some = list(task.held_out(5, samples=16))
    assert sum(len(batch.inputs) for batch in some) == 16
    assert (some[0].inputs == inputs[: 5 * 64 : 64]).all()


def hops_of(word, hops, i):
    """One hop after the other, as the definition reads."""
    for _ in range(hops):
        earlier = [j for j in range(1, i + 1) if word[j - 1] == word[i]]
        if not earlier:
            return -1
        i = max(earlier)
    return word[i]


@pytest.mark.parametrize("repeats", [True, False])
@pytest.mark.parametrize("hops", [1, 2, 4])
def test_hops_are_those_of_the_definition(hops, repeats):
    task = tasks.PHop(20, alphabet=4, hops=hops, repeats=repeats)
    batch = task.batch(0, 16, 0)
    expected = [[hops_of(list(w), hops, i) for i in range(20)] for w in batch.inputs]
    assert (batch.targets == expected).all()
    assert 0.2 < (batch.targets >= 0).mean() < 1
    assert (batch.inputs[:, 1:] == batch.inputs[:, :-1]).any() == repeats
    assert set(batch.inputs.ravel()) == {0, 1, 2, 3}


def test_the_most_hops_are_possible():
    """Two tokens in turns have them, at the last position."""
    word = np.arange(8)[None] % 2
    assert (hopped(word, 6) >= 0).tolist() == [[False] * 7 + [True]]
    assert (hopped(word, 7) < 0).all()


@pytest.mark.parametrize("degree", [2, 3, 5])
def test_words_are_products_of_matrices(degree):
    task = tasks.WordProblem(9, (3, 9), degree=degree)
    elements = np.array(list(itertools.permutations(range(degree))))
    # (g h)(x) = g(h(x)) is the product of matrices with a one at [g(x), x].
    matrices = np.eye(degree, dtype=int)[:, elements].transpose(1, 0, 2)
    batch = task.batch(0, 16, 0)
    lengths = (batch.targets >= 0).sum(axis=1)
    assert lengths.min() >= 3 and lengths.max() <= 9 and len(set(lengths)) > 3
    for word, targets, length in zip(batch.inputs, batch.targets, lengths, strict=True):
        product = np.eye(degree, dtype=int)
        for i in range(length):
            product = product @ matrices[word[i]]
            assert (matrices[targets[i]] == product).all()
        assert (targets[length:] == -1).all()


def test_parity_counts_the_ones():
    for inputs, targets in zip(*held_out(TASKS["parity"]), strict=True):
        written = "".join(map(str, inputs))
        bits = written[: written.index("2")]
        assert 9 <= len(bits) <= 12 and set(bits) <= set("01")
        assert set(written[len(bits) + 1 :]) <= {"3"}
        expected = [-1] * len(written)
        expected[len(bits)] = bits.count("1") % 2
        assert targets.tolist() == expected


@pytest.mark.parametrize("name", ["addition", "written"])
def test_sums_are_right(name):
    task = TASKS[name]
    plus, equals, padding = range(task.base, task.base + 3)

    def number(digits):
        return int("".join(map(str, digits[:: -1 if task.reverse else 1])), task.base)

    for row, goal in zip(*held_out(task), strict=True):
        inputs, targets = row.tolist(), goal.tolist()
        first, second = inputs.index(plus), inputs.index(equals)
        a, b = inputs[:first], inputs[first + 1 : second]
        c = targets[second : second + len(a) + 1]
        assert 5 <= len(a) == len(b) <= 6 and number(a) + number(b) == number(c)
        # All digits but the last are read before the next one is predicted.
        assert inputs[second + 1 : second + len(c)] == c[:-1]
        assert set(inputs[second + len(c) :]) <= {padding}
        rest = targets[:second] + targets[second + len(c) :]
        assert set(rest) == {-1}


@pytest.mark.parametrize(("name", "lengths"), [("columns", (5, 6)), ("ternary", (3, 6))])
def test_sums_in_columns_are_right(name, lengths):
    task = TASKS[name]
    for row, goal in zip(*held_out(task), strict=True):
        inputs, targets = row[task.start :].tolist(), goal[task.start :].tolist()
        end = inputs.index(task.base)
        assert lengths[0] <= end // 2 <= lengths[1] and end % 2 == 0
        digits = {"a": inputs[:end:2], "b": inputs[1:end:2], "c": targets[1 : end + 1 : 2]}
        digits["c"] = [*digits["c"][: end // 2], targets[end]]
        a, b, c = (sum(d * task.base**i for i, d in enumerate(x)) for x in digits.values())
        assert a + b == c and max(digits["c"]) < task.base
        assert set(inputs[end + 1 :]) <= {task.base + 1}
        assert set(targets[:end:2] + targets[end + 1 :]) <= {-1}


@pytest.mark.parametrize(
    ("plain", "started"),
    [
        (tasks.WordProblem(12, (4, 8)), tasks.WordProblem(13, (4, 8), start=True)),
        (tasks.Parity(13, (1, 8)), tasks.Parity(13, (1, 8), start=True)),
        (tasks.Addition(20, (1, 4)), tasks.Addition(20, (1, 4), start=True)),
    ],
)
def test_a_start_is_one_more_token_that_does_not_count(plain, started):
    batch, expected = started.batch(2, 16, 0), plain.batch(2, 16, 0)
    assert started.sizes["vocabulary"] == plain.sizes["vocabulary"] + 1
    assert started.tokens_per_sample == plain.tokens_per_sample + 1
    assert (batch.inputs[:, 0] == plain.sizes["vocabulary"]).all()
    assert (batch.targets[:, 0] == -1).all()
    assert (batch.inputs[:, 1:] == expected.inputs).all()
    assert (batch.targets[:, 1:] == expected.targets).all()
    with pytest.raises(ide.InputError, match="has 9 tokens"):
        tasks.WordProblem(8, (1, 8), start=True)


class Table(eqx.Module):
    """A model whose logits are a row of a table for each token, without an equation."""

    rows: jax.Array

    class Equation(NamedTuple):
        knots: np.ndarray

    class Solution(NamedTuple):
        u1: jax.Array
        succeeded: bool
        stats: dict

    equation: ClassVar = Equation(np.arange(2.0))

    def solve(self, inputs, **kwargs):
        return self.Solution(self.rows[inputs], True, {"field_evaluations": 1})

    def outputs(self, u):
        return u


def model_of(vocabulary):
    return Table(jax.random.normal(jax.random.key(0), (vocabulary, vocabulary)))


def test_the_loss_is_that_of_the_targets_that_count(unchecked):
    task = TASKS["p_hop"]
    model, batch = model_of(3), task.batch(0, 8, 0)
    result = task.loss(model, batch)
    logits = np.asarray(model.rows, np.float64)[batch.inputs]
    logs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    rows, columns = np.nonzero(batch.targets >= 0)
    chosen = logs[rows, columns, batch.targets[rows, columns]]
    assert int(result.figures["loss"].count) == len(rows) < batch.targets.size
    assert float(result.loss) == pytest.approx(-chosen.mean(), rel=1e-5)
    right = logits.argmax(-1) == batch.targets
    assert int(result.figures["accuracy"].total) == right.sum()
    assert (
        int(result.figures["exact_match"].total) == (right | (batch.targets < 0)).all(1).sum()
    )


def test_what_does_not_count_has_no_gradient(unchecked):
    task = TASKS["p_hop"]
    model, batch = model_of(3), task.batch(0, 4, 0)

    def loss(biases, batch):
        return task.loss(Table(model.rows + biases), batch).loss

    counted = batch.targets >= 0
    probabilities = jax.nn.softmax(model.rows)[batch.inputs[counted]]
    expected = probabilities.mean(0, keepdims=True)
    expected -= np.bincount(batch.targets[counted])[None] / counted.sum()
    assert jnp.allclose(jax.grad(loss)(jnp.zeros((1, 3)), batch), expected, atol=1e-6)
    nothing = batch._replace(targets=np.full_like(batch.targets, -1))
    assert loss(0.0, nothing) == 0 and (jax.grad(loss)(jnp.zeros((1, 3)), nothing) == 0).all()


def test_without_targets_to_skip_the_loss_is_the_ordinary_one(unchecked):
    task, model = TASKS["s5"], model_of(120)
    words = task.draw(8, np.random.default_rng(0), held_out=False).inputs
    ordinary = tasks.CrossEntropy()(model, tasks.Batch(words, words))
    counted = task.loss(model, tasks.Batch(words, words))
    assert float(counted.loss) == pytest.approx(float(ordinary.loss), rel=1e-6)
    assert int(counted.figures["loss"].count) == ordinary.figures["loss"].count


def test_the_exact_match_of_an_evaluation(unchecked):
    task = tasks.WordProblem(3, (1, 3))
    # It repeats the token, which is right at the first one.
    weights, static = eqx.partition(Table(jnp.eye(6)), eqx.is_inexact_array)
    values = make_evaluation(static)(weights, task, 300)
    inputs, targets = held_out(task)
    right = inputs == targets
    assert values["validation_accuracy"] == pytest.approx(right.sum() / (targets >= 0).sum())
    exact = (right | (targets < 0)).all(1).mean()
    assert values["validation_exact_match"] == pytest.approx(exact)
    assert 0.3 < exact < values["validation_accuracy"]


def test_an_evaluation_without_targets_is_refused(unchecked):
    task = tasks.PHop(32, hops=12)
    task.held_out = lambda *_: iter([tasks.Batch(*2 * [np.full((1, 32), -1)])])
    weights, static = eqx.partition(model_of(4), eqx.is_inexact_array)
    with pytest.raises(ide.InputError, match="None of these held-out samples has a target"):
        make_evaluation(static)(weights, task, 1)


def test_images_and_texts_have_no_exact_match(unchecked):
    task = tasks.LanguageTask("To be, or not to be. " * 40, 8)
    weights, static = eqx.partition(model_of(task.tokenizer.vocabulary), eqx.is_inexact_array)
    values = make_evaluation(static)(weights, task, 16)
    assert set(values) == {"validation_loss", "validation_accuracy"}


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: tasks.PHop(8, hops=9), r"hops=9 are rare.*context=8 .*have 0 targets"),
        (lambda: tasks.PHop(8, alphabet=99), r"hops=2 are rare.*Take fewer hops"),
        (lambda: tasks.PHop(1), r"hops=2 are rare.*context=1 tokens"),
        (lambda: tasks.PHop(8, hops=0), "PHop: hops=0: hops should be greater"),
        (
            lambda: tasks.PHop(8, alphabet=2),
            "alphabet=2: alphabet should be greater than or equal to 3",
        ),
        (
            lambda: tasks.WordProblem(8, (1, 8), degree=1),
            "degree=1: degree should be greater than or equal to 2",
        ),
        (
            lambda: tasks.WordProblem(8, (1, 8), degree=7),
            "degree=7: degree should be less than or equal to 6",
        ),
        (
            lambda: tasks.WordProblem(8, (0, 8)),
            r"lengths=\(0, 8\): lengths should be greater than 0",
        ),
        (lambda: tasks.Parity(8, (4, 3)), r"lengths=\[4, 3\].*write \[3, 4\]"),
        (lambda: tasks.Parity(8, (1, 8)), r"context=8 is too short.*has 9 tokens.*context=9"),
        (lambda: tasks.Parity(8, (1, 7), (0, 7)), r"held_out_lengths=\(0, 7\)"),
        (lambda: tasks.Parity(8, (1, 7), (8, 9)), r"length 9 \(held_out_lengths\) has 10"),
        (lambda: tasks.Addition(8, (1, 3)), "has 11 tokens"),
        (
            lambda: tasks.Addition(20, (1, 3), base=1),
            "base=1: base should be greater than or equal to 2",
        ),
    ],
)
def test_instances_that_are_impossible(call, message):
    with pytest.raises(ide.InputError, match=message):
        call()
