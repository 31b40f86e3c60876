"""What every family of checkpoints does."""

import copy
import functools as ft
import itertools
import json
import math
import re
import tempfile
import warnings
from pathlib import Path
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from ide_transformer import InputError
from ide_transformer.pretrained import find_pretrained, load_pretrained, save_pretrained
from ide_transformer.pretrained.checkpoint import Checkpoint
from ide_transformer.pretrained.files import write_archive, write_tensors
from ide_transformer.testing.properties import equal


_REMOVED = object()
_TOMORROW = "an_option_of_tomorrow"
# An error lists no more than twice as many tensors.
_MOST = 100

# Values of options that are words, by a part of the option's name.
_WORDS = {
    "act": ("gelu", "gelu_new", "gelu_pytorch_tanh", "quick_gelu", "relu", "silu", "tanh"),
    "pooler_act": ("tanh", "relu"),
    "position_embedding_type": ("absolute", "relative_key", "relative_key_query"),
    "feed_forward_proj": ("relu", "gated-gelu", "gated-silu", "gelu", "gated-relu"),
    "rope_type": ("default", "linear", "llama3", "dynamic", "yarn", "longrope", "proportional"),
    "layer_types": ("full_attention", "sliding_attention", "attention"),
}


def check_family(
    checkpoint, outputs, reference, *, tolerance=1e-6, single=None, options=(), every=1
):
    """Check what every family must do, on a small checkpoint with random weights.

    **Arguments:**

    - `checkpoint`: a folder or an archive, see `load_pretrained`.
    - `outputs`: the outputs of a model, an array or a mapping to arrays; it may be compiled.
    - `reference`: the same outputs by the original library, in double precision, or a function
      that computes them for a path. With a function every option is changed in many ways, and
      the original reads what is written here.
    - `tolerance`, `single`: on the difference of outputs, relative to the largest number of
      each, in double and, if it is not `None`, in single precision.
    - `options`: those to change; by default all that the file has or the family asks for.
    - `every`: 8 makes every eighth change.
    """
    source = find_pretrained(checkpoint)
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*not part of the model")
        case = _Case(source, Path(folder), outputs, reference, tolerance)
        case.check_outputs(single)
        case.check_written()
        case.check_tensors()
        case.check_copies()
        case.check_dtypes()
        if source.is_dir():
            case.check_shards()
        if callable(reference):
            changes = (x for x in case.changes() if not options or x.path[0] in options)
            case.check_options(itertools.islice(changes, 0, None, every))


class _Change(NamedTuple):
    """An option and its other value; the path leads into the objects of the file."""

    path: tuple
    value: object

    def of(self, options):
        changed = copy.deepcopy(options)
        *outer, name = self.path
        within = ft.reduce(dict.__getitem__, outer, changed)
        within[name] = self.value
        if self.value is _REMOVED:
            del within[name]
        return changed


class _Case:
    """A sound checkpoint and its model; changed ones are written into `folder`."""

    def __init__(self, source, folder, outputs, reference, tolerance):
        self.source, self.folder, self.tolerance = source, folder, tolerance
        self.outputs, self.reference = outputs, reference
        self.checkpoint = Checkpoint.open(source)
        self.options = self.checkpoint.options.values
        self.places = {name: x for x in self.checkpoint.table for name in x.names()}
        placed = {id(place.weight) for place in self.checkpoint.table}
        for x in jax.tree.leaves(self.checkpoint.skeleton):
            assert id(x) in placed or not isinstance(x, jax.ShapeDtypeStruct), x
        self.tensors = _tensors_of(self.checkpoint)
        self.model = self.checkpoint.model(None)
        self.computed = {}

    def write(self, tensors, options=None):
        """Another checkpoint, in a new place."""
        at = Path(tempfile.mkdtemp(dir=self.folder))
        values = self.options if options is None else options
        if self.source.is_file():
            write_archive(at / "model.npz", values, tensors)
            return at / "model.npz"
        write_tensors(at, tensors)
        (at / "config.json").write_text(json.dumps(values), encoding="utf-8")
        return at

    def _expected(self, at):
        return self.reference(at) if callable(self.reference) else self.reference

    def check_outputs(self, single):
        """The original library gives the same."""
        expected = self._expected(self.source)
        for dtype, bound in (("float64", self.tolerance), ("float32", single)):
            if bound is not None:
                outputs = self.outputs(self.checkpoint.model(dtype))
                assert _difference(expected, outputs) < bound, f"outputs in {dtype}"

    def check_written(self):
        """Options and tensors are those that were read, to the bit, or to rounding where the
        table multiplies or adds."""
        at, again, tensors = self.saved(self.model, self.source)
        options = again.options.values
        wrong = {name for name, x in self.options.items() if options.get(name) != x}
        assert not wrong - {"dtype", "torch_dtype"}
        assert tensors.keys() == self.tensors.keys()
        for name, x in tensors.items():
            place = self.places.get(self.checkpoint.family.canonical(name))
            rounded = place is not None and (place.scale, place.shift) != (1, 0)
            before = self.tensors[name]
            assert _near(x, before, 2) if rounded else np.array_equal(x, before), name
        if callable(self.reference):
            references = self._expected(self.source), self._expected(at)
            assert _difference(*references) < self.tolerance, "what the original library reads"

    def saved(self, model, like):
        """Where a model is saved, and the checkpoint and tensors there."""
        at = Path(tempfile.mkdtemp(dir=self.folder)) / like.name
        save_pretrained(model, at, like=like)
        again = Checkpoint.open(at)
        return at, again, _tensors_of(again)

    def check_copies(self):
        """A tensor that repeats another one, as a tied read-out, is compared with it and
        written with it; weights that were trained come back as they were."""
        family, places, original = self.checkpoint.family, self.places, self.checkpoint.original
        copies = {x: y for x, y in family.copies.items() if y in places and x not in places}
        repeated = {original.get(x, x): original[y] for x, y in copies.items()}
        same = {name: self.tensors[other] for name, other in repeated.items()}
        at = self.write(self.tensors | same)
        assert equal(load_pretrained(at), self.model)
        weights, rest = eqx.partition(self.model, eqx.is_inexact_array)
        # In NumPy, which compiles nothing.
        doubled = jax.tree.map(lambda x: jax.device_put(2 * np.asarray(x)), weights)
        trained = eqx.combine(doubled, rest)
        _, again, tensors = self.saved(trained, at)
        loaded = again.model(None)
        for x, y in zip(jax.tree.leaves(trained), jax.tree.leaves(loaded), strict=True):
            assert not eqx.is_array(x) or _near(x, y, 4), x.shape
        unread = re.compile(family.unread).fullmatch
        read = {x: y for x, y in repeated.items() if not unread(family.canonical(x))}
        for name, other in read.items():
            assert np.array_equal(tensors[name], tensors[other]), name
        if differing := {name: same[name] + 1 for name in read}:
            self.check_named(differing, "differs from", _refusal(self.changed(differing)))

    def check_tensors(self):
        """One that is missing, of another shape or unknown is refused by its name."""
        original = [self.checkpoint.original[name] for name in self.places][: 2 * _MOST - 1]
        # Half of them missing and half of another shape; then the other way around.
        for half in (0, 1):
            missing = dict.fromkeys(original[half::2])
            longer = {name: _longer(self.tensors[name]) for name in original[1 - half :: 2]}
            unknown = {"a_tensor.of_tomorrow": np.zeros(3, np.float32)}
            text = _refusal(self.changed(missing | longer | unknown))
            self.check_named(missing, "missing", text)
            self.check_named(longer, "expected", text)
            self.check_named(unknown, "not known", text)

    def changed(self, tensors):
        """The checkpoint with these tensors, `None` for a missing one."""
        every = self.tensors | tensors
        return self.write({name: x for name, x in every.items() if x is not None})

    def check_named(self, names, why, refusal):
        """A refusal names the first of these tensors with the reason."""
        for name in itertools.islice(names, _MOST):
            spellings = name, self.checkpoint.family.canonical(name)
            lines = [f"{x} ".replace(":", " ") for x in refusal.splitlines() if why in x]
            is_named = any(f"{y} " in x for x in lines for y in spellings)
            assert is_named, f"{name}, {why}"

    def check_shards(self):
        """Several files give the same model as one; a missing file is refused."""
        at, names = self.write({}), list(self.tensors)
        (at / "model.safetensors").unlink()
        index = {}
        for shard, part in enumerate((names[::2], names[1::2])):
            write_tensors(at, {name: self.tensors[name] for name in part})
            file = (at / "model.safetensors").rename(at / f"model-{shard}.safetensors")
            index |= dict.fromkeys(part, file.name)
        (at / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
        assert equal(load_pretrained(at), self.model)
        (at / "model-1.safetensors").unlink()
        assert "model-1.safetensors" in _refusal(at)

    def check_dtypes(self):
        """Weights and outputs are float32 where that is asked for, and where the tensors have
        less."""
        loaded = self.checkpoint.model("float32")
        floats = {x: y for x, y in self.tensors.items() if y.dtype.kind == "f"}
        half = self.tensors | {name: x.astype(np.float16) for name, x in floats.items()}
        at = self.write(half, {**self.options, "dtype": "float16"})
        outputs = eqx.filter_eval_shape(self.outputs, loaded)
        for x in jax.tree.leaves((loaded, outputs, load_pretrained(at))):
            if hasattr(x, "dtype") and jnp.issubdtype(x.dtype, np.floating):
                assert x.dtype == np.float32, x.shape

    def changes(self):
        """All changes of the options of the file and the family, a few of others."""
        family_options = self.checkpoint.options.names_read
        harmless = self.checkpoint.family.harmless.split()
        yield _Change((_TOMORROW,), 1)
        absent = sorted({*family_options, *harmless} - self.options.keys())
        for name, value in {**self.options, **dict.fromkeys(absent)}.items():
            if name != "model_type":
                some = _changes_at((name,), value, present=name in self.options)
                yield from some if name in family_options else itertools.islice(some, 3)

    def check_options(self, changes):
        """One that is changed is refused by name, or both libraries agree."""
        faults = [f"{x.path} = {x.value!r}: {y}" for x in changes if (y := self._fault_of(x))]
        assert not faults, "; ".join(faults[:20])

    def _fault_of(self, change):
        """The fault of a change; `None` where both libraries agree, or it is refused."""
        at = self.write(self.tensors, change.of(self.options))
        try:
            model = load_pretrained(at, dtype="float64")
        except Exception as error:
            return _misnamed(error, change)
        try:
            ours = self._computed(model)
        except InputError as error:
            # The model takes no inputs of this length.
            return None if "context" in str(error) else str(error)
        try:
            theirs = self._expected(at)
        except Exception as error:
            # The file means nothing to the original; here it has to mean what it did.
            same = equal(model, self.checkpoint.model("float64"))
            return None if same else f"only the original refuses it: {str(error)[:200]}"
        difference = _difference(theirs, ours)
        return None if difference < self.tolerance else f"outputs differ by {difference:.1e}"

    def _computed(self, model):
        """The outputs, once for models that are equal."""
        leaves, structure = jax.tree.flatten(model)
        key = structure, tuple(np.asarray(x).tobytes() for x in leaves)
        if key not in self.computed:
            self.computed[key] = jax.tree.map(np.asarray, self.outputs(model))
        return self.computed[key]


def _tensors_of(checkpoint):
    return {checkpoint.original[name]: x.read() for name, x in checkpoint.tensors.items()}


def _changes_at(path, value, *, present):
    if present:
        yield _Change(path, _REMOVED)
    for other in _other_values(path[-1], value):
        if not present or type(other) is not type(value) or other != value:
            yield _Change(path, other)
    if isinstance(value, dict) and path[-1] not in ("id2label", "label2id"):
        yield _Change((*path, _TOMORROW), 1)
        for name, inner in value.items():
            yield from _changes_at((*path, name), inner, present=True)


def _other_values(name, value):
    """Values that an option could have instead, sensible and not."""
    yield None
    for part, words in _WORDS.items():
        if part == name or (part == "act" and ("_act" in name or "activation" in name)):
            yield from words
    match value:
        case bool():
            yield from (not value, int(not value), str(value))
        case int():
            yield from (value + 1, value // 2, 1, 0, -1, str(value), float(value), True)
        case float():
            yield from (0.0, 1.0, -1.0, math.nan, math.inf, "1.0")
        case str():
            yield from ("nonsense", 1, True)
        case list():
            yield from ([], value[:-1], value + value[-1:], "nonsense")
            for word in _WORDS.get(name, ()):
                yield from ([word] * len(value), [*value[:-1], word])
        case dict():
            yield from ({}, "nonsense", [])
        case None:
            yield from (True, 3, 0.5, "nonsense", {})


def _misnamed(error, change):
    """The fault of an error that does not name the option, or the tensors that do not fit."""
    if not isinstance(error, InputError):
        return f"{type(error).__name__}: {error}"
    is_named = any(name in str(error) for name in ("tensors", *change.path))
    return None if is_named else f"refused without its name: {error}"


def _refusal(at):
    """The error for a checkpoint, empty where it is loaded."""
    try:
        Checkpoint.open(at)
    except InputError as error:
        return str(error)
    return ""


def _longer(x):
    return np.concatenate([x, x[:1]]) if x.ndim else x.reshape(1)


def _near(x, y, roundings):
    """Whether two arrays differ by at most some roundings of numbers around one."""
    x, y = np.asarray(x), np.asarray(y)
    bound = roundings * float(jnp.finfo(x.dtype).eps) * np.maximum(1, np.abs(y))
    return x.shape == y.shape and bool((np.abs(x - y) <= bound).all())


def _difference(theirs, ours):
    """The largest difference, relative to the largest number of each output."""
    if isinstance(theirs, dict):
        return max(_difference(x, ours.get(name, np.zeros(0))) for name, x in theirs.items())
    if theirs.shape != ours.shape:
        return math.inf
    relative = np.abs(theirs - ours).max() / np.abs(theirs).max()
    return float(np.nan_to_num(relative, nan=np.inf))
