"""Samples from arrays of a user, and texts of any size by the library datasets: what is read,
and what is refused."""

import json

import equinox as eqx
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tokenizers as tk

import ide_transformer as ide
from ide_transformer import InputError, tasks
from ide_transformer.tasks import Arrays, Dataset, tokenizing
from ide_transformer.training.setup import setup
from tests.training.stub import read_config


RANDOM = np.random.default_rng(0)
POINTS = np.sort(RANDOM.random(24))
VALUES = RANDOM.normal(size=(20, 24))
WORDS = RANDOM.integers(0, 5, (20, 8))


def started(path, kind, options=None, **model):
    """The task and the model of a run on arrays."""
    data = {"name": "arrays", "path": str(path), "options": options or {}}
    model = {"kind": kind, "width": 8, "heads": 1, "layers": 1, **model}
    run = setup(read_config({"data": data, "model": model}))
    return run.task, run.model


def test_functions_at_points():
    task = Arrays(VALUES, VALUES + 1, POINTS, validation=0.2, test=0.25)
    parts = [pair[0][:, 0] for pair in task.data.values()]
    assert sorted(map(len, parts)) == [4, 5, 11] and len(set(np.concatenate(parts))) == 20
    batch = task.batch(0, 4, 0)
    domain = ide.TokenDomain.from_points(POINTS[:, None].astype(np.float32), ((0.0, 1.0),))
    np.testing.assert_allclose(batch.targets.domain.weights, domain.weights)
    np.testing.assert_allclose(batch.inputs.values + 1, batch.targets.values, atol=1e-6)
    weights = np.linspace(1, 2, 24)
    plane, values = np.stack([POINTS, POINTS[::-1] ** 2], 1), np.stack([VALUES, VALUES], 2)
    other = Arrays(values, values, plane, weights, channels=True)
    domain = other.batch(0, 1, 0).inputs.domain
    np.testing.assert_allclose(domain.weights, weights, rtol=1e-6)
    assert other.sizes["points"] == (5, 5) and other.sizes["channels"] == 2


OF_GRID = {"points": 24, "grid": "periodic", "fields": False}
OF_SERIES = {"points": 24, "grid": "midpoint", "fields": False, "classes": 5}
IMAGES = RANDOM.random((20, 8, 8))


def test_points_and_parts_of_its_own_are_of_the_data(tmp_path):
    points = np.linspace(0, 1, VALUES.shape[1])[:, None]
    for name, power in (("a", 1), ("b", 3)):
        arrays = {"points": points**power, "validation_inputs": VALUES[:2]}
        arrays["validation_targets"] = VALUES[:2]
        np.savez(tmp_path / f"{name}.npz", inputs=VALUES, targets=VALUES, **arrays)
    first, other = (Arrays.build(tmp_path / f"{name}.npz").fingerprint() for name in "ab")
    assert first != other
    with pytest.raises(ide.InputError, match=r"data\.validation=0\.3: "):
        Arrays.build(tmp_path / "a.npz", validation=0.3)


@pytest.mark.parametrize(
    ("inputs", "targets", "kind", "sizes", "tokens"),
    [
        (WORDS, WORDS[:, 0] % 3, "sequence_classifier", {"vocabulary": 5, "classes": 3}, 8),
        (WORDS, np.where(WORDS > 3, -1, WORDS), "language_model", {"vocabulary": 5}, 8),
        (IMAGES, WORDS[:, 0], "image_classifier", {"image_shape": (8, 8, 1), "classes": 5}, 16),
        # One channel needs no option, and three axes without it are images.
        (VALUES, WORDS[:, 0], "function_classifier", OF_SERIES, 24),
        (VALUES, VALUES, "operator_model", OF_GRID, 24),
    ],
)
def test_what_is_learned(tmp_path, inputs, targets, kind, sizes, tokens):
    np.savez(tmp_path / "a.npz", x=inputs, y=targets)
    np.save(tmp_path / "x.npy", inputs)
    np.save(tmp_path / "y.npy", targets)
    columns = {"x": list(inputs.tolist()), "y": targets.tolist()}
    pq.write_table(pa.table(columns), tmp_path / "a.parquet")
    names = dict(inputs="x", targets="y", validation=0.3, normalize=False)
    tasks = [Arrays.build(tmp_path / name, **names) for name in ("a.npz", "", "a.parquet")]
    assert len({task.fingerprint() for task in tasks}) == 1
    assert tasks[0].sizes == sizes and tasks[0].tokens_per_sample == tokens
    if kind.endswith("classifier"):
        options = {"inputs": "x", "targets": "y"}
        small = {"context": 8, "patch": 2, "operators": ["damping"]}
        task, model = started(tmp_path / "a.npz", kind, options, **small)
        loss = eqx.filter_eval_shape(task.loss, model, task.batch(0, 4, 0))
        assert loss.objective.shape == ()


def test_targets_that_are_one_channel_of_the_inputs_later():
    channels = np.stack([VALUES, VALUES[::-1]], 2)
    with pytest.raises(InputError, match="inputs shifted by 2"):
        Arrays(channels[:, :-2], channels[:, 2:, 1:], channels=True)
    Arrays(channels, channels[..., 1:], channels=True)
    Arrays(channels, channels.sum(2, keepdims=True), channels=True)


TOKENS = RANDOM.integers(0, 5, (20, 25))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((IMAGES, np.eye(20)), r"targets\.argmax\(1\)"),
        ((VALUES, VALUES, np.where(POINTS > 0.5, 0, POINTS)), "occurs twice"),
        ((VALUES, 1e39 * VALUES), r"targets: .* \[0, 0\] is .*e\+3[89], .* float32"),
        ((VALUES, 0 * VALUES), r"targets of \d+ \w+ samples have a norm of 0e\+00"),
        # Their norms, as a relative error computes them.
        ((VALUES, 1e-25 * VALUES), r"targets of 2 .* norm of \de-25, whose square"),
        ((VALUES, 1e20 * VALUES), r"targets of 2 .* norm of \de\+2[01], whose square"),
        (
            (VALUES, np.where(POINTS < 0.5, VALUES, 0), POINTS, 1.0 * (POINTS >= 0.5)),
            r"targets of 2 validation samples have a norm of 0e\+00",
        ),
    ],
)
def test_arrays_that_do_not_fit(arguments, message):
    with pytest.raises(InputError, match=message):
        Arrays(*arguments)


SERIES = np.sin(np.arange(25) * RANDOM.uniform(0.2, 1, (20, 1)))


@pytest.mark.parametrize(
    ("series", "kind"), [(SERIES, "operator_model"), (TOKENS, "language_model")]
)
def test_a_forecast_sees_no_later_token(tmp_path, series, kind):
    pair = series[:, :-3], series[:, 3:]
    with pytest.raises(InputError, match=r"shifted by 3, .*data\.options\.causal=true"):
        Arrays(*pair)
    assert not Arrays(*pair, causal=False).causal
    np.savez(tmp_path / "a.npz", inputs=series[:, :-1], targets=series[:, 1:])
    options = {"causal": True}
    started(tmp_path / "a.npz", kind, options, context=24)
    sees_all = [{"kind": "attention", "options": {"causal": False}}]
    with pytest.raises(InputError, match="later tokens"):
        started(tmp_path / "a.npz", kind, options, context=24, operators=sees_all)


@pytest.mark.parametrize("grid", ["periodic", "midpoint"])
def test_functions_on_a_coarser_grid(grid):
    half = 0.5 * (grid == "midpoint")
    x, y = (np.arange(24) + half) / 24, (np.arange(8) + half) / 8
    plane = np.tile(x[:, None] + 2 * y, (20, 1, 1))
    coarse = Arrays(plane, plane, grid=grid).with_tokens((6, 4))
    assert coarse.sizes["points"] == (6, 4)
    expected = (np.arange(6)[:, None] + half) / 6 + 2 * (np.arange(4) + half) / 4
    np.testing.assert_allclose(coarse.data["training"][0][0], expected, atol=1e-6)


SEA = "the sea is wide\nand the night\n"
TEXTS = [SEA * 3, "", "∫ wörter ß\r\n\nwithout end" * 9, SEA]


@pytest.fixture(autouse=True)
def small_pieces(tmp_path, monkeypatch):
    monkeypatch.setenv("IDE_TRANSFORMER_CACHE", str(tmp_path / "cache"))
    for name in ("_PIECE", "_BATCH", "_BLOCK"):
        monkeypatch.setattr(tokenizing, name, 200)


def written(path, texts=TEXTS, column="text"):
    """The texts in a file of the kind that its name says."""
    if path.suffix == ".jsonl":
        lines = [json.dumps({"id": n, column: text}) for n, text in enumerate(texts)]
        path.write_text("\n".join(lines), encoding="utf-8")
    elif path.suffix == ".parquet":
        pq.write_table(pa.table({"id": range(len(texts)), column: texts}), path)
    else:
        path.mkdir()
        for index, text in enumerate(texts):
            (path / f"{index}.txt").write_bytes(text.encode())
    return path


def all_tokens(task):
    return task.tokens.windows(np.array([0]), len(task.tokens))[0]


@pytest.mark.parametrize(
    ("name", "tokenizer"), [("a.jsonl", "characters"), ("a.parquet", "bpe"), ("texts", "bpe")]
)
def test_tokens_are_those_of_the_texts(tmp_path, name, tokenizer):
    size = {"vocabulary": 300} if tokenizer == "bpe" else {}
    task = Dataset(written(tmp_path / name), 8, tokenizer=tokenizer, **size)
    tokens = all_tokens(task)
    parts = [np.append(task.tokenizer.encode(text), task.end) for text in TEXTS if text]
    assert (tokens == np.concatenate(parts)).all()
    assert task.token_bytes[tokens].sum() == len("".join(TEXTS).encode())
    starts = np.random.default_rng(0).integers(0, len(tokens) - 90, 20)
    assert (task.tokens.windows(starts, 90) == tokens[starts[:, None] + np.arange(90)]).all()
    assert len(task.tokens._parts) > 1 and task.sizes["vocabulary"] > task.end


def test_tables_with_missing_texts_in_another_column(tmp_path):
    file = written(tmp_path / "a.jsonl", [None, "abc", "", "de"], "body")
    task = Dataset(file, 1, column="body", validation=0.5)
    assert task.tokenizer.decode(all_tokens(task)) == "abc\x03de\x03"
    # These words are no missing values.
    (tmp_path / "a.csv").write_text('text\nNA\nnull\n""\nabc\n')
    task = Dataset(tmp_path / "a.csv", 1, validation=0.5)
    assert task.tokenizer.decode(all_tokens(task)) == "NA\x03null\x03abc\x03"


def test_texts_that_programs_write_their_own_way(tmp_path):
    """Names in capitals, a mark of the byte order, hidden copies."""
    folder = tmp_path / "texts"
    (folder / ".copies").mkdir(parents=True)
    (folder / ".copies" / "a.txt").write_text("three\n")
    (folder / "B.TXT").write_text("two\n")
    (folder / "a.txt").write_bytes(b"\xef\xbb\xbfone\n")
    assert tasks.read_text(folder) == "two\n\none\n"
    task = Dataset(folder, 1, validation=0.5)
    assert task.tokenizer.decode(all_tokens(task)) == "two\n\x03one\n\x03"


def test_a_line_between_documents(tmp_path):
    (tmp_path / "a.txt").write_text("one\n---\n---\ntwo ---\näöü∫\n---\n", encoding="utf-8")
    task = Dataset(tmp_path / "a.txt", 1, between="---", validation=0.5)
    assert task.tokenizer.decode(all_tokens(task)) == "one\n\x03two ---\näöü∫\n\x03"


def test_files_that_cannot_be_read(tmp_path):
    (tmp_path / "bad.txt").write_bytes(b"good\n" * 40 + b"\xff\n")
    (tmp_path / "bad.jsonl").write_text('{"text": "a"}\n{"text": \n')
    messages = {"bad.txt": r"b'.*good\\n\\xff'", "bad.jsonl": ""}
    for name, message in messages.items():
        with pytest.raises(InputError, match=rf"{name}.*{message}"):
            Dataset(tmp_path / name, 8)
    with pytest.raises(InputError, match="json, text"):
        Dataset(tmp_path, 8)


def test_options_that_a_file_does_not_use_are_refused(tmp_path):
    table, folder = written(tmp_path / "a.jsonl"), written(tmp_path / "texts")
    options = {"between": "---", "subset": "en", "split": "train", "vocabulary": 300}
    for name, value in options.items():
        with pytest.raises(InputError, match=f"{name}={value}"):
            Dataset(folder if name == "vocabulary" else table, 8, **{name: value})


def test_a_pass_takes_each_window_once(tmp_path):
    task, size = Dataset(written(tmp_path / "a.parquet"), 8, validation=0.2, test=0.1), 5
    tokens = all_tokens(task)
    num_windows = task.bounds["training"][1] // 8 - 1
    batches = [task.batch(step, size, seed=1) for step in range(2 * num_windows // size + 1)]
    windows = np.concatenate([np.c_[b.inputs, b.targets[:, -1:]] for b in batches])
    for epoch in range(2):
        begin = np.random.default_rng([1, epoch]).integers(8)
        ends = begin + 8 * num_windows + 1
        assert ends <= 0.7 * len(tokens) < ends + 16
        every = np.lib.stride_tricks.sliding_window_view(tokens[begin:ends], 9)[::8]
        in_epoch = windows[epoch * num_windows : (epoch + 1) * num_windows]
        assert sorted(map(tuple, in_epoch)) == sorted(map(tuple, every))


def test_a_saved_tokenizer_is_named_by_its_file(tmp_path):
    words = {"a": 0, "b": 70000, "<|endoftext|>": 2, "[UNK]": 3}
    tokenizer = tasks.PretrainedTokenizer(tk.Tokenizer(tk.models.WordLevel(words, "[UNK]")))
    tokenizer.save(tmp_path / "words.json")
    path = written(tmp_path / "a.jsonl", ["b"] * 9)
    task = Dataset(path, 1, tokenizer=str(tmp_path / "words.json"))
    assert task.windows_at(np.array([0, 3])).tolist() == [[70000, 2], [2, 70000]]
