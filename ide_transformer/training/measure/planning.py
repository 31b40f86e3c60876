"""Plans a run on many devices: what each would hold and send. Computes no array."""

import functools as ft
import math
import re
from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp

from ...arguments import PositiveInt, checked
from ...errors import InputError
from ...tasks import Batch, CrossEntropy
from ..configuration.config import Config
from ..steps.build import build_model_of_size, with_training
from ..steps.layout import ParallelConfig, check_divisible, make_layout
from ..steps.memory import size_bytes
from ..steps.schedule import programs_of


# The vocabulary, if the configuration gives none.
VOCABULARY = 32_768
# Bytes that a device sends for each byte of a result, in a ring of n devices.
_SENT = {
    "all-gather": lambda n: (n - 1) / n,
    "all-reduce": lambda n: 2 * (n - 1) / n,
    "reduce-scatter": lambda n: n - 1,
    "all-to-all": lambda n: (n - 1) / n,
    "collective-permute": lambda n: 1,
}
_OPERATION = re.compile(rf"\s*(?:ROOT )?%\S+ = (.*?) ({'|'.join(_SENT)})(?:-start)?\(")


@checked
def plan_of(
    config: Config, devices: Sequence[PositiveInt], samples: PositiveInt = 1
) -> list[dict[str, Any]]:
    """A table of `plan` for each number of `devices`, in GiB, with four layouts: samples are
    divided; weights too; and among each 4 devices also the heads, or the tokens. Leaves out
    layouts that do not divide the model.

    **Raises:** `InputError` if no layout is left.
    """
    rows = []
    refused = []
    for number in devices:
        layouts = [ParallelConfig(data=number), ParallelConfig(fsdp=number)]
        if number % 4 == 0:
            layouts.append(ParallelConfig(fsdp=number // 4, tensor=4))
            layouts.append(ParallelConfig(fsdp=number // 4, sequence=4))
        for layout in layouts:
            try:
                row = plan(config, layout, samples)
            except InputError as error:
                refused.append(error)
                continue
            rows.append({name: row[name] for name in ("devices", "layout", "accumulate")})
            for name in ("state", "temporary", "sent"):
                rows[-1][f"{name} (GiB)"] = f"{row[f'{name}_bytes'] / 2**30:.2f}"
    if not rows:
        raise refused[0]
    return rows


@checked
def plan(config: Config, devices: ParallelConfig, samples: PositiveInt = 1) -> dict[str, Any]:
    """What a training step of a language model needs on each device: the bytes of the training
    state, of the rest of a step, and that it sends in a step, from the compiled program. The
    vocabulary is the configuration's, or 32,768 tokens.

    **Arguments:**

    - `devices`: the layout. The process must see that many devices, which may be virtual.
    - `samples`: samples that a group of devices which share a sample computes at once; the rest
      follow, as with `training.accumulate`.

    **Raises:** `InputError` for fewer devices, and for a layout that does not divide samples,
    heads or tokens.
    """
    if config.model.kind != "language_model" or config.training.schedule:
        what = f"model.kind={config.model.kind}: a plan needs a language model"
        raise InputError(f"{what}, language_model, and no training.schedule.")
    groups = devices.data * devices.fsdp
    size = config.training.batch_size
    parts = (n for n in range(1, size + 1) if size % n == 0 and size <= n * samples * groups)
    accumulate = next((n for n in parts if size // n % groups == 0), 1)
    config = config.changed("training", accumulate=accumulate)
    config = config.model_copy(update={"parallel": devices})
    sizes = {"vocabulary": config.data.vocabulary or VOCABULARY}
    build = ft.partial(build_model_of_size, config, sizes)
    model = with_training(eqx.filter_eval_shape(build, jax.random.key(0)), config.training)
    check_divisible(devices, config.training, model, ())
    (program,) = programs_of(config, model, lambda: model)
    layout = make_layout(devices, jax.devices()[: devices.devices])
    shape = jax.ShapeDtypeStruct((size, config.model.context), jnp.int32)
    with jax.set_mesh(layout.grid):
        step = program.lowered(0, CrossEntropy(), layout, Batch(shape, shape))
        compiled = step.compile()
    program_text = compiled.as_text()
    memory = compiled.memory_analysis()
    assert program_text is not None and memory is not None
    sent = sent_bytes(program_text)
    sizes = [f"{axis} {size}" for axis, size in devices.sizes.items() if size > 1]
    return {
        "devices": devices.devices,
        "layout": ", ".join(sizes) or "one device",
        "accumulate": accumulate,
        "state_bytes": layout.bytes_each(program.shapes),
        "temporary_bytes": memory.temp_size_in_bytes,
        **{f"{name}_bytes": sent.get(name, 0.0) for name in _SENT},
        "sent_bytes": sum(sent.values()),
        "parameters": size_bytes(program.shapes.weights) // 4,
    }


def sent_bytes(program: str) -> dict[str, float]:
    """Bytes that a device sends in a compiled program, by the kind of operation. Reads the text
    of the program; loops count as often as they run."""
    bodies: dict[str, list[str]] = {}
    for block in re.split(r"\n\n+", program):
        head, _, body = block.partition("\n")
        if head.rstrip().endswith("{"):
            name = "ENTRY" if head.startswith("ENTRY ") else head.split()[0]
            bodies[name] = body.splitlines()
    total: dict[str, float] = {}

    def add(name: str, times: float) -> None:
        for line in bodies.get(name, ()):
            if match := _OPERATION.match(line):
                shapes, kind = match.groups()
                sent = _bytes_of(shapes) * _SENT[kind](_group(line))
                total[kind] = total.get(kind, 0.0) + times * sent
            count = re.search(r'"known_trip_count":\{"n":"(\d+)"', line)
            inner = times * int(count[1]) if count else times
            for called in re.findall(r"(?:body|to_apply|calls)=(%[^,}\s]+)", line):
                add(called, inner)
            # Each branch is assumed to run equally often.
            for branches in re.findall(r"branch_computations=\{([^}]+)\}", line):
                for called in (names := branches.split(", ")):
                    add(called, inner / len(names))

    add("ENTRY", 1)
    return total


def _bytes_of(shapes: str) -> float:
    """Bytes of arrays such as `(bf16[4,8]{1,0}, pred[])`."""
    return sum(
        int(bits or 8) / 8 * math.prod(int(n) for n in dims.split(",") if n)
        for bits, dims in re.findall(r"[a-z]+(\d*)\w*\[([\d,]*)\]", shapes)
    )


def _group(line: str) -> int:
    """The number of devices of an operation; two if one sends to another."""
    groups = line.partition("replica_groups=")[2]
    if not groups:
        return 2
    if match := re.match(r"\[\d+,(\d+)\]|\{\{([\d,]+)\}", groups):
        return int(match[1] or len(match[2].split(",")))
    if match := re.match(r"mesh\[(.*?)\][^{]*\{(.*?)\}", groups):
        sizes = dict(re.findall(r"('\w+')=(\d+)", match[1]))
        # A part of an axis is written `'a':(2)4`.
        axes = re.findall(r"('\w+')(?::\(\d+\)(\d+))?", match[2])
        return math.prod(int(part or sizes[axis]) for axis, part in axes)
    raise InputError(f"a plan cannot read the groups of devices in {line.strip()[:200]}")
