"""Plans on paper: the bytes that are sent, from the text of a program."""

import pytest
from training import stub

from ide_transformer import InputError
from ide_transformer.training import ParallelConfig, plan, plan_of
from ide_transformer.training.planning import sent_bytes


PROGRAM = """HloModule jit_step

%stays (x: f32[8]) -> f32[8] {
  ROOT %x = f32[8]{0} parameter(0)
}

%hops (x: f32[8]) -> f32[8] {
  ROOT %p = f32[8]{0} collective-permute(%x), source_target_pairs={{0,1},{1,0}}
}

%body (t: (s32[], f32[8])) -> (s32[], f32[8]) {
  %g = bf16[4,8]{1,0} all-gather(%y), replica_groups=[2,4]<=[8], dimensions={0}
  %c = f32[8]{0} conditional(%i, %x, %x), branch_computations={%stays, %hops}
}

ENTRY %main (x: f32[8]) -> f32[8] {
  %w = (s32[], f32[8]{0}) while(%t), body=%body, backend_config={"known_trip_count":{"n":"6"}}
  %s = f32[2]{0} reduce-scatter(%x), replica_groups={{0,1,2,3},{4,5,6,7}}, dimensions={0}
  %a = f32[8]{0} all-to-all(%x), replica_groups={{0,1},{2,3}}
  ROOT %r = f32[8]{0} all-reduce(%x), replica_groups={{0,1},{2,3}}, to_apply=%add
}
"""


def test_what_is_sent_counts_loops_and_branches():
    expected = {
        "all-gather": 6 * (4 * 8 * 2) * 3 / 4,
        # One of two branches, in each of six turns.
        "collective-permute": 6 / 2 * (8 * 4),
        # Its result is a part.
        "reduce-scatter": (2 * 4) * 3,
        "all-to-all": (8 * 4) / 2,
        "all-reduce": 2 * (8 * 4) / 2,
    }
    assert sent_bytes(PROGRAM) == pytest.approx(expected)


def test_layouts_that_have_no_plan():
    with pytest.raises(InputError, match=r"parallel.tensor = 4 .* number of heads, 2"):
        plan(stub.config(), ParallelConfig(tensor=4))
    for devices in (0, 2, 6):
        said = rf"devices=.*{devices}.* (multiples of 4|greater than 0)"
        with pytest.raises(InputError, match=said):
            plan_of(stub.config(), [devices])
    with pytest.raises(InputError, match="a plan needs one mesh"):
        plan(stub.config("training.meshes=[2]"), ParallelConfig())
