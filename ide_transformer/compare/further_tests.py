"""Further tests of the trained runs of a comparison: other data, another mesh or part."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import field
from pathlib import Path
from typing import Annotated, Any

import jax
import numpy as np

from ..errors import ConfigError, at
from ..integration import Mesh
from ..packages import checksum
from ..pretrained.files import read_json
from ..reporting import write_json
from ..tasks import Part
from ..training import Config, RunFolder, Section, evaluate_on_meshes, load_model
from ..training.configuration.files import override_config
from ..training.configuration.section import Count, not_empty, section
from ..training.folder.run_folder import source
from .comparison import Rows, fingerprint
from .measure import spread
from .results import difference


@section
class FurtherTest(Section):
    """An evaluation of trained runs with other data or another mesh. Keys that are not set stay
    as in the training.

    - `options`: options of the data, such as the lengths of inputs.
    - `context`: the tokens of a sample.
    - `mesh`: arguments of a `Mesh`, such as `{horizon: 32}`.
    - `part`: the part of the data, `test` or `validation`.
    - `samples`: the number of samples, evenly spread. Default: all.
    - `figures`: the figures to compare, such as `exact_match`. Default: the loss.
    - `schemes`: the schemes to test. Default: all.
    """

    options: dict[str, Any] = field(default_factory=dict)
    context: Count | None = None
    mesh: Mesh = Mesh()
    part: Part = "test"
    samples: Count | None = None
    figures: Annotated[tuple[str, ...], not_empty] = ("loss",)
    schemes: tuple[str, ...] = ()

    @property
    def overrides(self) -> list[str]:
        """The changes to the configuration of a run."""
        changes = {f"data.options.{name}": x for name, x in self.options.items()}
        if self.context is not None:
            changes["model.context"] = self.context
        return [f"{key}={json.dumps(x)}" for key, x in changes.items()]

    def apply(self, config: Config) -> Config:
        """Applies the changes to the configuration of a run.

        **Raises:** `InputError` for a wrong key or value.
        """
        keys = {f"data.options.{name}": self.key / "options" / name for name in self.options}
        keys["model.context"] = self.key / "context"
        places = {name: key.place for name, key in keys.items()}
        return override_config(config, self.overrides, places)

    def measure(self, run: RunFolder, data: str, folder: Path) -> dict[str, Any]:
        """The figures of a run. They are stored in `folder`, and measured again after a change
        of the test, the run, the checksum of its `data`, or the code."""
        code = source(run.load_config())
        changes = json.dumps(self.as_tree())
        key = fingerprint(run.path.name, checksum(run.summary), data, changes, code)
        file = folder / f"{key}.json"
        if not file.exists():
            loaded = load_model(run, self.overrides)
            meshes = [self.mesh]
            (row,) = evaluate_on_meshes(loaded, meshes, samples=self.samples, part=self.part)
            if missing := [name for name in self.figures if name not in row]:
                raise ConfigError(
                    f"{self.key / 'figures'}={missing} must be some of {', '.join(row)}."
                )
            write_json(file, {"run": run.path.name, "code": code, "figures": row})
            jax.clear_caches()  # frees the memory of programs
        return read_json(file)["figures"]


def measure_tests(
    tests: Mapping[str, FurtherTest],
    data: Mapping[tuple[str, str], str],
    runs: Mapping[str, Sequence[RunFolder]],
    references: Mapping[str, str],
    folder: Path,
) -> Rows:
    """A row for each test, figure and scheme: the figures of all seeds, their mean and spread,
    and the difference to the reference of the scheme, if both are tested on the same data.

    **Arguments:**

    - `data`: the checksum of the data, by test and scheme.
    - `runs`: the runs of each scheme, one for each seed.
    - `references`: the scheme to subtract, by scheme.
    - `folder`: the folder for the figures of each run.
    """
    rows: Rows = []
    for name, test in tests.items():
        measured = {}
        for scheme, seeds in runs.items():
            if (name, scheme) in data:
                with at(test.key):
                    measured[scheme] = [
                        test.measure(run, data[name, scheme], folder) for run in seeds
                    ]
        for figure in test.figures:
            # `None` stands for a number that is not finite.
            values_of = {
                scheme: np.array([row[figure] for row in figures], dtype=float).tolist()
                for scheme, figures in measured.items()
            }
            for scheme, values in values_of.items():
                reference = references.get(scheme, "")
                is_paired = (
                    reference in values_of and data[name, scheme] == data[name, reference]
                )
                row = {
                    **{"test": name, "figure": figure, "scheme": scheme},
                    "mean": float(np.mean(values)),
                    "spread": spread(values),
                    "lowest": min(values),
                    "median": float(np.median(values)),
                    "highest": max(values),
                    **difference(values, values_of[reference] if is_paired else None),
                    "seeds": values,
                }
                rows.append(row)
    return rows
