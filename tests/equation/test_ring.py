"""The token integral divided among devices, and how arrays lie on a mesh of them."""

import json
import sys
from pathlib import Path

import jax
import pytest
from jax.sharding import PartitionSpec
from running import run_apart

from ide_transformer.equation import divided, on_devices


@pytest.mark.heavy
def test_a_ring_gives_the_integral_and_its_derivatives():
    command = [sys.executable, Path(__file__).parent / "on_ring.py"]
    differences = json.loads(run_apart(command).stdout.splitlines()[-1])
    for region, (travels, difference) in differences.items():
        assert travels and difference < 1e-11, region


def test_an_axis_that_devices_do_not_divide_stays_whole():
    sizes, names = dict(data=2, fsdp=3, tensor=1, sequence=4), ("samples", "tokens", "inner")
    assert divided((12, 8, 5), names, sizes) == PartitionSpec(
        ("data", "fsdp"), ("sequence",), None
    )
    assert divided((8, 6, 5), names, sizes) == PartitionSpec(None, None, None)
    u = jax.ShapeDtypeStruct((2, 4, 8), float)
    assert "sharding" not in str(jax.make_jaxpr(on_devices)(u))
