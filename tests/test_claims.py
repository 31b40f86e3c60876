"""What pages of results claim about several stored rows: corrected, paired, of more seeds."""

import json
import re

import pytest
from scipy import stats

from tests.helpers import ROOT


RESULTS = ROOT / "docs" / "results"
COARSE = (RESULTS / "coarse_first.md").read_text(encoding="utf-8")


def stored(name):
    return json.loads((RESULTS / name).read_text(encoding="utf-8"))


def test_the_correction_of_coarse_meshes_keeps_what_the_page_says():
    """Holm's, of the eight paired differences at equal cost; what it keeps is in bold."""
    values = {}
    for file, difference in re.findall(
        r"\((\w+\.json)\)(?:[^|]*\|){3} ([^|]*±[^|]*) \|", COARSE
    ):
        rows = stored(file)["rows"]
        (reference,) = [x for x in rows if x["difference"] is None]
        rows.remove(reference)
        printed = float(re.sub(r"\*|±.*", "", difference).replace("−", "-"))
        coarse = min(rows, key=lambda x: abs(x["difference"] - printed))
        values[difference] = stats.ttest_rel(coarse["seeds"], reference["seeds"]).pvalue
    ranked = sorted(values, key=values.get)
    kept = [values[x] <= 0.05 / (8 - rank) for rank, x in enumerate(ranked)]
    assert len(ranked) == 8
    assert [all(kept[: rank + 1]) for rank in range(8)] == ["**" in x for x in ranked]


@pytest.mark.parametrize(
    "file, digits, claim",
    [
        ("coarse_unit_depth.json", 3, "−0.001 ± 0.011"),
        ("coarse_p_hop.json", 4, "+0.0035 ± 0.0008"),
    ],
)
def test_the_difference_over_more_seeds_is_that_on_the_page(file, digits, claim):
    coarse, fine = (
        next(x["seeds"] for x in stored(file)["rows"] if x["scheme"] == row["scheme"])
        + next(values for key, values in row.items() if key.startswith("seeds"))
        for row in stored(file)["more"]
    )
    low, high = stats.ttest_rel(coarse, fine).confidence_interval()
    found = f"{(low + high) / 2:+.{digits}f} ± {(high - low) / 2:.{digits}f}"
    assert found.replace("-", "−") == claim
    assert claim in COARSE
