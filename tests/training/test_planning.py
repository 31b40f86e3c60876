"""Plans on paper: what the text of a program says of the bytes that are sent."""

import pytest
from helpers import ROOT

from ide_transformer import InputError
from ide_transformer.training import ParallelConfig, load_config, plan, plan_of
from ide_transformer.training.planning import sent_bytes


PROGRAM = """HloModule jit_step

%add (a: f32[], b: f32[]) -> f32[] {
  %a = f32[] parameter(0)
  ROOT %sum = f32[] add(%a, %b)
}

%stays (x: f32[8]) -> f32[8] {
  ROOT %x = f32[8]{0} parameter(0)
}

%hops (x: f32[8]) -> f32[8] {
  %x = f32[8]{0} parameter(0)
  ROOT %p = f32[8]{0} collective-permute(%x), source_target_pairs={{0,1},{1,0}}
}

%body (t: (s32[], f32[8])) -> (s32[], f32[8]) {
  %x = f32[8]{0} get-tuple-element(%t), index=1
  %g = bf16[4,8]{1,0} all-gather(%y), replica_groups=[2,4]<=[8], dimensions={0}
  %c = f32[8]{0} conditional(%i, %x, %x), branch_computations={%stays, %hops}
}

ENTRY %main (x: f32[8]) -> f32[8] {
  %w = (s32[], f32[8]{0}) while(%t), body=%body, backend_config={"known_trip_count":{"n":"6"}}
  ROOT %r = f32[8]{0} all-reduce(%x), replica_groups={{0,1},{2,3}}, to_apply=%add
}
"""


def test_what_is_sent_counts_loops_and_branches():
    gathered = 6 * (4 * 8 * 2) * 3 / 4
    # One of two branches, in each of six turns.
    permuted = 6 / 2 * (8 * 4)
    reduced = 2 * (8 * 4) / 2
    expected = {"all-gather": gathered, "collective-permute": permuted, "all-reduce": reduced}
    assert sent_bytes(PROGRAM) == pytest.approx(expected)


def test_a_mesh_that_does_not_divide_the_heads_has_no_plan():
    config = load_config(ROOT / "configs/quick.yaml", ["model.heads=2", "model.width=8"])
    with pytest.raises(InputError, match=r"parallel.tensor = 4 .* number of heads, 2"):
        plan(config, ParallelConfig(tensor=4))


@pytest.mark.parametrize("devices", [0, 2, 6])
def test_devices_that_four_does_not_divide(devices):
    with pytest.raises(
        InputError, match=rf"devices=.*{devices}.* (multiples of 4|greater than 0)"
    ):
        plan_of(load_config(ROOT / "configs/quick.yaml"), [devices])
