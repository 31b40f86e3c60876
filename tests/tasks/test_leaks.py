"""Held-out samples are none that a model has learned: steps of trajectories, later tokens,
samples that come twice, and instances that are drawn again."""

import numpy as np
import pytest

import ide_transformer as ide
from ide_transformer import tasks
from ide_transformer.tasks import Arrays


RANDOM = np.random.default_rng(0)
NUMBER, STEPS, POINTS = 12, 8, 32
NAMES = np.array([f"trajectory {n}" for n in range(NUMBER)])


def heat(samples=NUMBER, steps=STEPS, points=POINTS, diffusivity=1e-3):
    """Solutions of the heat equation on a circle at the times 0, 1, 2, …, `[steps + 1, number,
    points]`."""
    wave = np.fft.rfftfreq(points, 1 / points)
    first = np.fft.rfft(RANDOM.normal(size=(samples, points)))
    decay = np.exp(-diffusivity * (2 * np.pi * wave) ** 2)
    return np.stack([np.fft.irfft(first * decay**n, points) for n in range(steps + 1)])


PATHS = heat()


def pairs(paths):
    """The steps of trajectories as samples, and the number of the trajectory of each."""
    before, after = paths[:-1], paths[1:]
    names = np.tile(NAMES[: paths.shape[1]], len(before))
    return [x.reshape(-1, *paths.shape[2:]) for x in (before, after)], names


def history(paths):
    """Two states in, the next one out, as channels."""
    before = np.stack([paths[:-2], paths[1:-1]], -1)
    return [x.reshape(-1, paths.shape[2], x.shape[-1]) for x in (before, paths[2:, ..., None])]


ORDER = RANDOM.permutation(POINTS)
SOME = RANDOM.permutation(NUMBER * STEPS)[:30]


@pytest.mark.parametrize(
    ("flat", "options"),
    [
        (pairs(PATHS)[0], {}),
        ([pairs(PATHS)[0][0], pairs(PATHS)[0][1][:, ORDER]], {}),
        ([x[SOME] for x in pairs(PATHS)[0]], {}),
        (history(PATHS), {"channels": True}),
    ],
    ids=["steps", "another order of points", "a third of them", "history"],
)
def test_steps_of_trajectories_are_refused(flat, options):
    with pytest.raises(ide.InputError, match=r"\d\d% of the targets"):
        Arrays(*flat, **options)


def test_a_trajectory_is_wholly_in_one_part():
    (inputs, targets), names = pairs(PATHS)
    task = Arrays(inputs, targets, groups=names, validation=0.2, test=0.3)
    rows = {x.astype(np.float32).tobytes(): name for x, name in zip(inputs, names, strict=True)}
    of_part = {part: {rows[x.tobytes()] for x in pair[0]} for part, pair in task.data.items()}
    assert {x: len(y) for x, y in of_part.items()} == dict(validation=2, test=4, training=6)
    assert set.union(*of_part.values()) == set(NAMES)
    numbers = np.unique(names, return_inverse=True)[1]
    again = Arrays(inputs, targets, groups=numbers, validation=0.2, test=0.3)
    assert again.fingerprint() == task.fingerprint()
    # Labels of the times would not keep anything apart.
    with pytest.raises(ide.InputError, match=r"88% of the targets .*group"):
        Arrays(inputs, targets, groups=np.repeat(np.arange(STEPS), NUMBER))
    with pytest.raises(ide.InputError, match=r"12 groups .*validation"):
        Arrays(inputs, targets, groups=names, validation=0.01)
    with pytest.raises(ide.InputError, match="groups should be integers or texts"):
        Arrays(inputs, targets, groups=np.ones(96))


NOISE, TOKENS = RANDOM.normal(size=(40, 60)), RANDOM.integers(0, 20, (40, 60))


@pytest.mark.parametrize(
    ("inputs", "targets", "options"),
    [
        (PATHS[0], PATHS[1], {}),
        (*pairs(PATHS)[0], {"groups": np.arange(NUMBER * STEPS)}),
        (PATHS[0], PATHS[1] - PATHS[0], {}),
        (NOISE, NOISE[:, ::-1], {}),
        (*2 * [np.repeat(TOKENS, 2, axis=1)], {}),
    ],
    ids=["one step", "labels that all differ", "increments", "mirrored", "runs of a token"],
)
def test_samples_that_do_not_belong_together_are_taken(inputs, targets, options):
    Arrays(inputs, targets, **options)


def test_samples_that_come_twice_are_counted():
    values, words = RANDOM.normal(size=(50, 12)), RANDOM.integers(0, 9, (50, 12))
    values[10:30] = values[30:]
    for inputs, targets in ((values, values + 1), (words, words[:, 0] % 2)):
        task = Arrays(inputs, targets, validation=0.2, test=0.2)
        learned = {x.tobytes() for x in task.data["training"][0]}
        numbers = [sum(x.tobytes() in learned for x in task.data[y][0]) for y in task.parts]
        assert [*task.repeated().values()] == [(number, 10) for number in numbers]
        assert any(numbers) == (inputs is values)
    images = tasks.LabelledImages(np.zeros((20, 4, 4, 1), np.float32), np.zeros(20, np.int32))
    images.images[:5] += np.arange(1, 6)[:, None, None, None]
    task = tasks.ClassificationTask(images, images.select(np.arange(5)), patch=2)
    assert task.repeated()["test"][0] + task.repeated()["validation"][0] >= 5


def test_windows_of_a_text_that_stand_in_the_training_part():
    words = RANDOM.integers(97, 123, 8000, np.uint8).tobytes().decode()
    task = tasks.LanguageTask(words, 32, test=0.2)
    assert task.repeated() == {"validation": (0, 24), "test": (0, 49)}
    # Three windows of the validation part, and one more that begins elsewhere.
    held_out = words[7200:]
    text = words[:1000] + held_out[64 : 64 + 97] + "!" + held_out[320:353] + words[1131:]
    task = tasks.LanguageTask(text, 32, test=0.2)
    learned = text[: task.bounds["training"][1]]
    windows = [text[i : i + 33] for i in range(7200, len(text) - 32, 32)]
    expected = sum(window in learned for window in windows)
    assert task.repeated()["validation"] == (expected, 24) and expected == 4
    # Of short windows.
    assert tasks.LanguageTask(text, 31).repeated() == {}
