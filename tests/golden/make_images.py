"""Golden checkpoints of images, and their outputs by transformers.

    python tests/golden/make_images.py

writes tests/golden/{vit,deit,dinov2,cvt}: `config.json`, `model.safetensors` in float64 with
random weights, and `outputs.npz`: images and logits, at the size of the checkpoint and another.
It needs torch and transformers. The present files were written by transformers 5.24.0.
"""

from pathlib import Path

import numpy as np


GOLDEN = Path(__file__).parent
SIZES = {"images": (8, 8), "resized_images": (12, 4)}
# Two stages, of the second of which the keys are not coarser.
CVT = dict(
    embed_dim=[4, 8],
    num_heads=[2, 2],
    depth=[1, 2],
    mlp_ratio=[2.0, 1.5],
    patch_sizes=[5, 3],
    patch_stride=[2, 2],
    patch_padding=[2, 1],
    stride_kv=[2, 1],
    cls_token=[False, True],
    **{
        name: [value] * 2
        for name, value in dict(
            attention_drop_rate=0.0,
            drop_rate=0.0,
            drop_path_rate=0.0,
            qkv_bias=True,
            qkv_projection_method="dw_bn",
            kernel_qkv=3,
            padding_q=1,
            padding_kv=1,
            stride_q=1,
        ).items()
    },
)


def original(kind, config, dtype="float64", seed=0):
    """A model of the library in which every parameter is random: those that start as zeros
    or ones would hide a mistake."""
    import torch

    torch.manual_seed(seed)
    model = kind(config).to(getattr(torch, dtype)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            around = 1.0 if parameter.ndim == 1 and parameter.mean() > 0.5 else 0.0
            parameter.copy_(around + 0.15 * torch.randn_like(parameter))
        for name, statistics in model.named_buffers():
            if name.endswith(("running_mean", "running_var")):
                least = 0.5 if name.endswith("var") else -0.5
                statistics.copy_(least + torch.rand_like(statistics))
    return model


def run(model, images, **options):
    """The output of a model of the library for images with their channels last."""
    import torch

    pixels = torch.tensor(np.moveaxis(images, -1, -3).copy())
    with torch.no_grad():
        output = model(pixels, **options)
    return output


def states_or_logits(output):
    return getattr(output, "logits", getattr(output, "last_hidden_state", None)).numpy()


def resizing(model):
    """The options with which the library takes images of another size."""
    any_size = model.config.model_type in ("cvt", "dinov2")
    return {} if any_size else {"interpolate_pos_encoding": True}


def random_images(size, channels=3, number=2, dtype=np.float64):
    images = np.random.default_rng(0).normal(size=(number, *size, channels))
    return images.astype(dtype)


def write(name, kind, config):
    model = original(kind, config)
    model.save_pretrained(GOLDEN / name)
    arrays = {}
    for key, size in SIZES.items():
        arrays[key] = random_images(size)
        options = resizing(model) if key == "resized_images" else {}
        arrays[key.replace("images", "logits")] = states_or_logits(
            run(model, arrays[key], **options)
        )
    np.savez_compressed(GOLDEN / name / "outputs.npz", **arrays)


def main():
    import transformers as library

    common = dict(
        hidden_size=8,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=8,
        patch_size=4,
        num_labels=3,
    )
    vit = library.ViTConfig(**common, intermediate_size=12)
    write("vit", library.ViTForImageClassification, vit)
    deit = library.DeiTConfig(**common, intermediate_size=12)
    write("deit", library.DeiTForImageClassificationWithTeacher, deit)
    dinov2 = library.Dinov2Config(**common, mlp_ratio=2, use_swiglu_ffn=True)
    write("dinov2", library.Dinov2ForImageClassification, dinov2)
    cvt = library.CvtConfig(**CVT, num_labels=3)
    write("cvt", library.CvtForImageClassification, cvt)


if __name__ == "__main__":
    main()
