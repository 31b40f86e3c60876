"""The settings of the studies: models, data, and points of the tests."""

from collections.abc import Callable
from typing import Any, NamedTuple

from ide_transformer.contrib import Darcy
from ide_transformer.tasks import AbstractTask, BurgersInterval


TASKS: dict[str, Callable[..., AbstractTask]] = {"burgers": BurgersInterval, "darcy": Darcy}
CONTEXTS = {"burgers": 32, "darcy": 16}


class Test(NamedTuple):
    """Test functions at other points: the context and the options of the task."""

    context: int
    options: dict[str, Any]


class Cell(NamedTuple):
    """A line of a table."""

    model: str  # ours, waves or fno
    bed: str  # burgers or darcy
    options: dict[str, Any]  # of the task in training

    @property
    def name(self) -> str:
        said = "_".join(f"{key}_{value}" for key, value in sorted(self.options.items()))
        return f"{self.model}_{self.bed}_{said}"

    def task(self, test: Test | None = None) -> AbstractTask:
        """The data of training, or of a test."""
        context, options = test or (CONTEXTS[self.bed], {})
        return TASKS[self.bed](context=context, **{**self.options, **options})


GRID, RANDOM = {"points": "grid"}, {"points": "random"}
PLAIN = {"weights": "equal"}
LINES = [
    *(("ours", x) for x in (GRID, {**RANDOM, "weights": "quadrature"}, {**RANDOM, **PLAIN})),
    *(("fno", x) for x in (GRID, RANDOM)),
]
# Waves are for a torus.
WAVES = [("waves", GRID), ("waves", RANDOM)]
# By study: the lines of its tables.
CELLS = {
    "samples": [
        Cell(model, "darcy", {"samples": samples})
        for samples in (100, 300, 900)
        for model in ("ours", "waves", "fno")
    ],
    "points": [
        Cell(model, bed, options)
        for bed, lines in (("burgers", LINES), ("darcy", [*LINES, *WAVES]))
        for model, options in lines
    ],
}
CLUSTERED = {"points": "clustered"}
# By study and bed: the tests.
TESTS = {
    "samples": {"darcy": {"16²": Test(16, GRID), "32²": Test(32, GRID)}},
    "points": {
        "burgers": {
            "grid": Test(32, GRID),
            "scattered": Test(32, RANDOM),
            "clustered": Test(32, CLUSTERED),
            "clustered, plain": Test(32, {**CLUSTERED, **PLAIN}),
        },
        "darcy": {
            "grid": Test(16, GRID),
            "scattered": Test(16, {**RANDOM, "subset": 128}),
            "clustered": Test(16, {**CLUSTERED, "subset": 128}),
            "clustered, plain": Test(16, {**CLUSTERED, "subset": 128, **PLAIN}),
            "scattered, finer": Test(32, {**RANDOM, "subset": 256}),
            "clustered, finer": Test(32, {**CLUSTERED, "subset": 256}),
            "clustered, finer, plain": Test(32, {**CLUSTERED, "subset": 256, **PLAIN}),
        },
    },
}
