"""Problems for trained models: losses, draws and texts."""

import jax
import numpy as np
import tokenizers as tk

import ide_transformer as ide
from ide_transformer.contrib.depth_problem import halves_of_speeches, make_problem
from tests.golden.copies import changed_copy
from tests.helpers import drawn
from tests.training import stub


def unit_means(text, losses):
    """Directions of the means over the tokens of random states, and the losses of these."""
    mask = np.asarray(text.mask)
    states = np.asarray(drawn((*mask.shape, 5), seed=7))
    means = (states * mask[..., None]).sum(1) / mask.sum(1, keepdims=True)
    units = means / np.linalg.norm(means, axis=1, keepdims=True)
    return units, jax.jit(losses)(states)


def cross_entropies(first, second):
    scores = 20 * first @ second.T
    return np.log(np.exp(scores).sum(1)) - np.diag(scores)


def test_the_loss_of_a_text_encoder_is_that_of_finding_other_halves(tmp_path):
    """Among 64 speeches; the last group has fewer."""
    letters = {chr(60 + i): i for i in range(61)}
    tokenizer = tk.Tokenizer(tk.models.BPE(letters, [], unk_token="?"))
    tokenizer.save(str(changed_copy(tmp_path, "bert") / "tokenizer.json"))
    loaded = ide.load_model(tmp_path)
    problem = make_problem(loaded, 3, 66)
    # They are measured on the last tenth of the speeches, of which nothing is chosen.
    speeches = halves_of_speeches(ide.tasks.shakespeare())
    first, end = len(speeches) * 9 // 10, len(speeches) - 1
    pairs = [speeches[i] for i in np.linspace(first, end, 66).astype(int)]
    texts = [x for half in zip(*pairs, strict=True) for x in half]
    context = loaded.model.inputs.context
    expected = loaded.tokenizer.encode_batch(texts, context)
    np.testing.assert_array_equal(problem.held_out.tokens, expected.tokens)
    ends = loaded.tokenizer.encode_batch([*speeches[0], speeches[first - 1][0]], context)
    calibration = problem.calibration.tokens
    expected = ends.tokens[:, : calibration.shape[1]]
    assert {x.tobytes() for x in calibration} == {x.tobytes() for x in expected}
    # Another draw has other calibration samples, in pairs, and the same to measure on.
    other = make_problem(loaded, 4, 66, draw=1)
    np.testing.assert_array_equal(other.held_out.tokens, problem.held_out.tokens)
    texts = [{x.tobytes() for x in y.calibration.tokens[:, :20]} for y in (problem, other)]
    assert not texts[0] & texts[1]
    # Calibration has both halves of a speech after each other, the rest all firsts before.
    units, losses = unit_means(other.calibration, other.calibration_losses)
    np.testing.assert_allclose(losses, cross_entropies(units[::2], units[1::2]), rtol=1e-6)
    units, losses = unit_means(problem.held_out, problem.losses)
    first, second = units[:66], units[66:]
    groups = [cross_entropies(first[x], second[x]) for x in (slice(64), slice(64, 66))]
    np.testing.assert_allclose(losses, np.concatenate(groups), rtol=1e-6)


def test_a_text_is_measured_on_its_last_tenth(tmp_path):
    config = stub.config("model.operators=[damping]", **stub.tree_of_text(tmp_path))
    loaded = ide.load_model(stub.start_run(config, tmp_path).path)
    context = loaded.model.inputs.context
    text = "the cat " * 90 * context + "dogs " * 16 * context
    problem = make_problem(loaded, 8, 4, text=text)
    parts = problem.calibration, problem.held_out
    words = [{loaded.tokenizer.decode(x) for x in np.asarray(part)} for part in parts]
    assert not any("dog" in x for x in words[0])
    assert all("dog" in x for x in words[1])
    other = make_problem(loaded, 8, 4, draw=1, text=text)
    np.testing.assert_array_equal(other.held_out, problem.held_out)
    assert not np.array_equal(other.calibration, problem.calibration)
