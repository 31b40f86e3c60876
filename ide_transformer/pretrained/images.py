"""Parts that the builders and tables of image families share."""

from collections.abc import Iterator

from ..errors import InputError
from ..models import ImageEncoder
from .fields import Fields
from .placement import Placement


# Modules of the library's newer versions and their names in checkpoints.
ATTENTION_MODULES = (
    (r"\battention\.q_proj\b", "attention.attention.query"),
    (r"\battention\.k_proj\b", "attention.attention.key"),
    (r"\battention\.v_proj\b", "attention.attention.value"),
    (r"\battention\.o_proj\b", "attention.output.dense"),
)


def image_shape(fields: Fields, *, patch: int) -> tuple[tuple[int, int, int], int]:
    """The shape of the images, (rows, columns, channels), and the side of a patch.

    **Arguments:**

    - `patch`: the default of the family.

    **Raises:** `InputError` for patches that are no squares or do not divide the image.
    """
    rows, columns = _pair(fields, "image_size", 224)
    side, other = _pair(fields, "patch_size", patch)
    if side != other:
        raise InputError(
            f"{fields.file}: patch_size = [{side}, {other}] is not supported: patches have to "
            "be squares."
        )
    if rows % side or columns % side:
        raise InputError(
            f"{fields.file}: image_size = [{rows}, {columns}] is no multiple of patch_size = "
            f"{side}. The pixels that are left over would be ignored: write the size without "
            f"them, [{rows - rows % side}, {columns - columns % side}], and give such images."
        )
    return (rows, columns, fields.get("num_channels", 3)), side


def classes(fields: Fields) -> int:
    """The number of classes: by their names, by their number, else two."""
    names = fields.get("id2label", None)
    return fields.get("num_labels", 2) if names is None else len(names)


def embeddings(model: ImageEncoder, *prefix: str) -> Iterator[Placement]:
    """The patches, the tokens before them and the positions.

    **Arguments:**

    - `prefix`: the names of the prefix tokens.
    """
    name, width = "embeddings.patch_embeddings.projection", model.positions.shape[1]
    # A convolution, [features, channels, rows, columns], whose stride is its size.
    weight, shape = model.embedding.weight, (model.patch, model.patch, model.image_shape[2])
    yield Placement(weight, f"{name}.weight", axes=(2, 3, 1, 0), shape=(*shape, width))
    yield Placement(model.embedding.bias, f"{name}.bias")
    for token, prefix_name in zip(model.prefix, prefix, strict=True):
        yield Placement(token, f"embeddings.{prefix_name}", shape=(1, 1, width))
    shape = (1, *model.positions.shape)
    yield Placement(model.positions, "embeddings.position_embeddings", shape=shape)


def _pair(fields: Fields, name: str, default: int) -> tuple[int, int]:
    value = fields.get(name, default)
    pair = [value, value] if isinstance(value, int) else value
    if not isinstance(pair, list) or len(pair) != 2:
        raise InputError(
            f"{fields.file}: {name} = {value!r} is neither a number nor [rows, columns]."
        )
    return pair[0], pair[1]
