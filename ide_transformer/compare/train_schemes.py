"""Compares schemes by training with each: the same data, seeds and budget for all."""

import functools as ft
import itertools
from collections.abc import Sequence
from dataclasses import field
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

from rich.console import Console

from .. import training
from ..errors import ConfigError, at, did_you_mean
from ..reporting import Report, show_table, write_report
from ..tasks import AbstractLoss, AbstractTask
from ..training import Config
from ..training.configuration.files import config_of, override_config
from ..training.configuration.section import PartOf, Seed, is_folder_name, not_empty, section
from ..training.configuration.text import Tree
from ..training.folder.loading import check_weights_fit
from ..training.steps.phases import check_without_data
from .budget import Budget, tokens_of_samples
from .comparison import AbstractComparison, Rows, about_sources
from .further_tests import FurtherTest, measure_tests
from .results import (
    LearningCurve,
    at_equal_cost,
    broken_rules,
    difference,
    difference_text,
    learning_curve,
    summarise_runs,
    verdict,
)
from .sweep import Sweep, Trial, Tuned, grid, tune, write_sweep
from .trials import Plan, Trials


# Columns of the losses at equal cost.
_EQUAL = {"at_equal_evaluations": "evaluations", "at_equal_time": "seconds"}


# Sections of a run that differ from the base.
Changes = Annotated[dict[str, Any], PartOf(Config)]


class Contender(NamedTuple):
    """A scheme with a budget, and perhaps a recipe. `label` is the name without the budget."""

    name: str
    label: str
    scheme: str
    recipe: str | None
    budget: Budget


@section
class TrainingComparison(AbstractComparison):
    """Trains each scheme from scratch on the same data, with the same seeds and budget.

    - `base`: the configuration of a run, relative to this file.
    - `seeds`: the seeds of the runs of each scheme.
    - `budget`: the cost of every run.
    - `sweep`: the keys to tune for each scheme first, such as the learning rate.
    - `schemes`: the sections in which a scheme differs from the base, by name.
    - `recipes`: further sections, by name. Each scheme is trained without a recipe and, as
      `<scheme> with <recipe>`, with each recipe.
    - `reference`: the scheme whose losses are subtracted from the losses of the others, seed by
      seed and with equal recipes. The reference with a recipe is compared with the reference
      without one.
    - `tests`: data and meshes to measure the trained runs on, by name; see `FurtherTest`. Their
      table is in the folder `tests`.
    """

    mode: Literal["train"]
    base: Path
    seeds: Annotated[tuple[Seed, ...], not_empty] = (0,)
    budget: Budget
    sweep: Sweep | None = None
    schemes: Annotated[dict[str, Changes], not_empty]
    recipes: dict[str, Changes] = field(default_factory=dict)
    reference: str | None = None
    tests: dict[str, FurtherTest] = field(default_factory=dict)

    _curves: dict[str, LearningCurve] = field(default_factory=dict, init=False)
    _tasks: dict[Any, AbstractTask] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        names = [x.name for x in self.contenders]
        if len(set(self.seeds)) < len(self.seeds):
            raise ConfigError(f"{self.key / 'seeds'}={list(self.seeds)} must be different.")
        for name in names:
            largest = max(*self.seeds, self._tuning_seed)
            folder = Trial(name, (1.234e-300,) * len(self._swept), largest).name
            if not is_folder_name(folder):
                raise ConfigError(
                    f"{self.key / 'schemes'}: {name}: {folder} is not a valid folder name; "
                    "rename the scheme."
                )
        if len({Trial(name, (), 0).name for name in names}) < len(names):
            raise ConfigError(
                f"{self.key / 'schemes'}: two of {', '.join(names)} would share a folder; "
                "rename one."
            )
        schemes = ", ".join(self.schemes)
        if self.reference not in (None, *self.schemes):
            raise ConfigError(
                f"{self.key / 'reference'}={self.reference!r} must be one of {schemes}."
                f"{did_you_mean(self.reference, self.schemes)}"
            )
        for test in self.tests.values():
            if unknown := [x for x in test.schemes if x not in self.schemes]:
                raise ConfigError(f"{test.key / 'schemes'}={unknown}: use some of {schemes}.")
        for part, changes in (("schemes", self.schemes), ("recipes", self.recipes)):
            for name, sections in changes.items():
                keys = sections.get("training")
                for shared, instead in (("steps", "budget.amount"), ("seed", "seeds")):
                    if isinstance(keys, dict) and shared in keys:
                        key = self.key / part / name / "training" / shared
                        raise ConfigError(f"{key}: all runs share it; set {instead} instead.")
        costly = [key for key in self._swept if not key.startswith("optimizer.")]
        if costly and self.budget.unit != "steps":
            raise ConfigError(
                f"{self.key / 'sweep'}: {', '.join(costly)} may change how many steps "
                f"{self.budget} allow; set budget.unit=steps, or use separate schemes."
            )
        self._check_configs()

    def _check_configs(self) -> None:
        """Reads the configuration of each contender, with each value of the sweep and with each
        test, before any data are read."""
        for (scheme, _), config in self._configs.items():
            for key, values in self._swept.items():
                place = (self.key / "sweep.keys" / key).place
                for value in values:
                    override_config(config, [f"{key}={value!r}"], {key: place})
            for test in self.tests.values():
                if not test.schemes or scheme in test.schemes:
                    test.apply(config)

    @ft.cached_property
    def _configs(self) -> dict[tuple[str, str | None], Config]:
        """The configuration of each scheme with each recipe."""
        key = self.key / "base"
        if not self.base.is_file():
            raise ConfigError(f"{key}={self.base}: there is no such file.")
        base = training.read_tree(self.base)
        configs = {}
        for scheme, recipe in itertools.product(self.schemes, (None, *self.recipes)):
            tree = Tree(base, base.places)
            tree.merge(self.schemes[scheme], self.key / "schemes" / scheme)
            if recipe is not None:
                tree.merge(self.recipes[recipe], self.key / "recipes" / recipe)
            configs[scheme, recipe] = config_of(tree)
        return configs

    @ft.cached_property
    def contenders(self) -> list[Contender]:
        """Each scheme with each budget, without a recipe and with each recipe."""
        contenders = []
        for budget, recipe, scheme in itertools.product(
            self.budget.each, (None, *self.recipes), self.schemes
        ):
            label = scheme if recipe is None else f"{scheme} with {recipe}"
            name = f"{label}, {budget}" if self._has_budgets else label
            contenders.append(Contender(name, label, scheme, recipe, budget))
        return contenders

    @property
    def _has_budgets(self) -> bool:
        return len(self.budget.amounts) > 1

    @ft.cached_property
    def _reference(self) -> dict[str | None, str]:
        """The reference with the largest budget, by recipe; empty without a reference."""
        return {
            x.recipe: x.name
            for x in self.contenders
            if x.scheme == self.reference and x.budget == self.contenders[-1].budget
        }

    @ft.cached_property
    def _references(self) -> dict[str, str]:
        """The contender that is subtracted from each contender."""
        reference = self._reference
        return {
            x.name: reference[None if x.scheme == self.reference else x.recipe]
            for x in self.contenders
            if reference and x.name != reference[None]
        }

    @property
    def _swept(self) -> dict[str, tuple[float, ...]]:
        return self.sweep.keys if self.sweep else {}

    @property
    def _tuning_seed(self) -> int:
        """The seed of the sweep."""
        seed = self.sweep and self.sweep.seed
        return self.seeds[0] if seed is None else seed

    def prepare(self) -> None:
        _ = self._plans, self._test_data

    def measure(self, folder: Path, console: Console) -> tuple[str, Rows]:
        keys = tuple(self._swept)
        trials = Trials(folder / "runs", self._plans, keys, self.key / "sweep.keys", console)
        tuning_seed = self._tuning_seed
        other_seeds = [seed for seed in self.seeds if seed != tuning_seed]
        trials.runs_left = len(self._plans) * len(other_seeds)
        for trial in (t for name in self._plans for t in grid(name, self._swept, tuning_seed)):
            with at(self.key / "schemes" / trial.scheme):
                trials.runs_left += not trials.is_done(trial)
        results = [
            tune(name, self.sweep, tuning_seed, trials.loss, trials.can_run)
            for name in self._plans
        ]
        repeated = [x.best._replace(seed=seed) for seed in other_seeds for x in results]
        trials.runs_left = sum(not trials.is_done(trial) for trial in repeated)
        for trial in repeated:
            trials.loss(trial)
        rows = self._rows(trials, results)
        if self.sweep:
            write_sweep(folder, self.sweep, results, f"validation {self._loss.label}")
        if self.tests:
            self._measure_tests(folder / "tests", trials, results)
        runs_by_code: dict[str, list[str]] = {}
        for trial in (*(t for result in results for t in result.losses), *repeated):
            runs_by_code.setdefault(trials.code(trial), []).append(trial.name)
        broken = self._broken_rules(rows)
        sources = about_sources(runs_by_code)
        conclusion = verdict(rows, self._references)
        for sentence in [*broken, sources] if len(runs_by_code) > 1 else broken:
            console.print(f"note: {sentence}")
        if conclusion:
            console.print(conclusion)
        # Broken rules follow the conclusion that they limit.
        return conclusion + " ".join((*broken, self._about(), sources)), rows

    def _rows(self, trials: Trials, results: Sequence[Tuned]) -> Rows:
        """A row for each contender, the best first. A contender with a failed run comes last
        and has no figures."""
        rows: Rows = []
        budgets = {x.name: x.budget for x in self.contenders}
        for (scheme, values, _), _, at_edge in results:
            row: dict[str, Any] = {
                "scheme": scheme,
                **dict(zip(self._swept, values, strict=True)),
            }
            if self._swept:
                row["at_edge"] = ", ".join(at_edge) or None
            seed_trials = [Trial(scheme, values, seed) for seed in self.seeds]
            failures = [x for x in map(trials.failure, seed_trials) if x]
            if failures:
                row |= {self._reported: None, "failure": failures[0]}
            else:
                runs = trials.results(seed_trials)
                row |= summarise_runs(runs, self._reported)
                if self.budget.unit == "flops":
                    row["flops"] = budgets[scheme].amounts[0]
                if (start := trials.run_folder(seed_trials[0]).start) is not None:
                    row["start"] = ", ".join(f"{name} {x}" for name, x in start.items())
                tokens = []
                for trial in seed_trials:  # meshes depend on the seed
                    config = trials.config(trial)
                    sizes = tokens_of_samples(config, self._plans[scheme].task, row["steps"])
                    tokens.append(config.training.batch_size * sizes)
                self._curves[scheme] = learning_curve(runs, tokens)
            rows.append(row)
        losses = {row["scheme"]: row.get("seeds") for row in rows}
        for row in rows:
            if references := self._references:
                name = row["scheme"]
                reference = references.get(name)
                is_paired = reference is not None and self._data[name] == self._data[reference]
                row |= difference(losses[name], losses[reference] if is_paired else None)
        if self._curves and not self._has_budgets:
            for column, cost in _EQUAL.items():
                equal = at_equal_cost(self._curves, cost)
                rows = [{**row, column: equal.get(row["scheme"])} for row in rows]
        return sorted(rows, key=lambda row: (row[self._reported] is None, row[self._reported]))

    def _measure_tests(self, folder: Path, trials: Trials, results: Sequence[Tuned]) -> None:
        """Writes a report on the tests of all schemes without a failed run."""
        runs = {}
        for result in results:
            seed_trials = [result.best._replace(seed=seed) for seed in self.seeds]
            if not any(map(trials.failure, seed_trials)):
                runs[result.best.scheme] = [trials.run_folder(trial) for trial in seed_trials]
        rows = measure_tests(
            self.tests, self._test_data, runs, self._references, folder / "figures"
        )
        tests = "; ".join(f"{name}: {test.changes()}" for name, test in self.tests.items())
        about = f"The runs of {self.name} on further tests. {tests}."
        headings = {name: self.headings[name] for name in ("difference", "half_width")}
        headings["spread"] = "standard deviation over seeds"
        write_report(folder, Report(f"{self.name}, tests", about, rows, headings))
        hidden = ("half_width", "seeds")
        table_rows = [
            {x: row[x] for x in row if x not in hidden} | {"difference": difference_text(row)}
            for row in rows
        ]
        show_table(table_rows, headings)

    def _broken_rules(self, rows: Rows) -> list[str]:
        warmups = {}
        for row in rows:
            warmup = self._plans[row["scheme"]].config.optimizer.warmup
            warmups[row["scheme"]] = row.get("optimizer.warmup", warmup)
        samples = {}
        first = [self._reference[None]] if self._reference else []
        for name in (*first, *self._plans):
            config, task = self._plans[name]
            samples[name] = self._data[name], task.sized_by_context and config.model.context
        tested = self._reported == "test_loss"
        return broken_rules(len(self.seeds), self._swept, tested, rows, warmups, samples)

    def _about(self) -> str:
        seeds = ", ".join(map(str, self.seeds))
        about = [
            f"Each scheme trained from scratch with {self.budget} for the seeds {seeds}; "
            f"otherwise as {self.base.name}. Figures are means over seeds on all samples of "
            f"their part; the spread is the standard deviation of {self._reported}."
        ]
        if self.sweep is not None:
            about.append(
                f"Of {', '.join(self._swept)} each scheme has the values with the lowest "
                f"validation loss for seed {self._tuning_seed}; sweep.json has all values."
            )
        if self.reference is not None:
            recipes = ""
            if self.recipes:
                recipes = f" with the same recipe ({', '.join(self.recipes)})"
            about.append(
                f"The difference is to {self._reference[None]}{recipes}, seed by seed."
            )
        if not self._has_budgets:
            about.append(
                "Losses at equal evaluations or time are validation losses on the learning "
                "curve at the total cost of the cheapest scheme, where the learning rate of "
                "the others has not decayed yet."
            )
        return " ".join(about)

    @property
    def _difference(self) -> str:
        recipe = ", with the same recipe" if self.recipes else ""
        return f"difference to {self._reference[None]}{recipe}" if self._reference else ""

    @property
    def headings(self) -> dict[str, str]:
        reported = self._reported.replace("_", " ")
        return {
            "validation_loss": f"validation: {self._loss.label}",
            "test_loss": f"test: {self._loss.label}",
            "spread": f"standard deviation of the {reported} over seeds",
            "difference": self._difference,
            "half_width": "half of its 95 % interval",
            "at_edge": "best value at the edge of the sweep",
            "at_equal_evaluations": "validation loss at equal field evaluations",
            "at_equal_time": "validation loss at equal training time",
            "evaluations_per_step": "field evaluations of a forward solve",
            "field_evaluations": "field evaluations of the training",
            "flops": "floating-point operations of these evaluations",
            "tokens_per_second": "tokens per second of training",
            "seeds": f"{reported} of each seed",
        }

    def table_rows(self, rows: Rows) -> Rows:
        """The result, the tuned values, the differences, and the costs."""
        columns = [
            *(self._reported, self._reported.replace("loss", "bits_per_byte"), "spread"),
            *("difference", *_EQUAL, "parameters", "evaluations_per_step"),
            "tokens_per_second",
        ]
        columns = [x for x in columns if any(row.get(x) is not None for row in rows)]
        table = []
        for row in rows:
            cells = {"scheme": row["scheme"]}
            cells |= {key.rpartition(".")[2]: row[key] for key in self._swept}
            cells |= {x: row.get(x) for x in columns}
            if "difference" in cells:
                cells["difference"] = difference_text(row)
            if "failure" in row:
                cells["failure"] = row["failure"]
            table.append(cells)
        return table

    def draw(self, folder: Path, rows: Rows) -> None:
        """Draws learning curves by step and by cost, and the differences; with several budgets
        also the final losses by cost."""
        from ..figures import Curve, plot_curves, plot_intervals, plot_panels

        y = f"validation {self._loss.label}"
        reported = f"{self._reported.removesuffix('_loss')} {self._loss.label}"
        cost = "field evaluations of the training"
        by_step = {name: (x.steps, x.losses, x.band) for name, x in self._curves.items()}
        look = dict(title="Learning curves", x="optimiser step", y=y)
        plot_curves(folder / "loss_by_step.png", by_step, **look)
        by_cost = {name: (x.evaluations, x.losses, x.band) for name, x in self._curves.items()}
        look = dict(title="Loss and cost", x=cost, y=y)
        plot_curves(folder / "loss_by_cost.png", by_cost, **look)
        if self._has_budgets:
            # A line through the means of a scheme, and at each cost a line through its seeds.
            lines = []
            finished = [row for row in rows if "failure" not in row]
            finished.sort(key=lambda row: row["field_evaluations"])
            labels = {x.name: x.label for x in self.contenders}
            for label in dict.fromkeys(labels.values()):
                scheme_rows = [row for row in finished if labels[row["scheme"]] == label]
                costs = [row["field_evaluations"] for row in scheme_rows]
                lines.append(Curve(label, costs, [row[self._reported] for row in scheme_rows]))
                for x, row in zip(costs, scheme_rows, strict=True):
                    lines.append(Curve(label, [x] * len(row["seeds"]), row["seeds"]))
            look = dict(title="Loss at the end of runs of several costs", x=cost, y=reported)
            plot_panels(folder / "loss_by_budget.png", {"": lines}, marker=".", **look)
        differences = {
            row["scheme"]: (row["difference"], row["half_width"])
            for row in rows
            if row.get("half_width") is not None
        }
        if differences:
            title = f"{self._difference.capitalize()}, and its 95 % interval"
            plot_intervals(folder / "differences.png", differences, title=title, x=reported)

    @property
    def _reported(self) -> str:
        """The loss to compare: on test data if all schemes have them, as tuning uses others."""
        tested = all("test" in plan.task.parts for plan in self._plans.values())
        return "test_loss" if tested else "validation_loss"

    @property
    def _loss(self) -> AbstractLoss:
        return next(iter(self._plans.values())).task.loss

    @ft.cached_property
    def _data(self) -> dict[str, str]:
        """A checksum of the data of each contender."""
        fingerprint = ft.cache(lambda task: task.fingerprint())
        return {name: fingerprint(plan.task) for name, plan in self._plans.items()}

    @ft.cached_property
    def _plans(self) -> dict[str, Plan]:
        """The configuration and the data of each contender."""
        for config in self._configs.values():
            check_without_data(config)
        plans = {}
        for contender in self.contenders:
            with at(self.key / "schemes" / contender.scheme):
                plans[contender.name] = self._plan(contender)
        return plans

    @ft.cached_property
    def _test_data(self) -> dict[tuple[str, str], str]:
        """A checksum of the data of each test, by test and contender."""
        checksums = {}
        for (name, test), contender in itertools.product(self.tests.items(), self.contenders):
            if not test.schemes or contender.scheme in test.schemes:
                with at(test.key):
                    config, task_of_runs = self._plans[contender.name]
                    test_config = test.apply(config)
                    task = self._task(test_config)
                    check_weights_fit(config, task_of_runs.sizes, test_config, task.sizes)
                    if test.part not in task.parts:
                        raise ConfigError(
                            f"{test.key / 'part'}={test.part}: the data of {contender.name} "
                            f"have {' and '.join(task.parts)}."
                        )
                checksums[name, contender.name] = task.fingerprint()
        return checksums

    def _task(self, config: training.Config) -> AbstractTask:
        """The data of a configuration. Equal data are read once."""
        model = config.model
        data = str(config.data)
        key = data, model.context, model.side_of_token, model.pretrained, model.run
        if key not in self._tasks:
            self._tasks[key] = training.build_task(config)
        return self._tasks[key]

    def _plan(self, contender: Contender) -> Plan:
        config = self._configs[contender.scheme, contender.recipe]
        task = self._task(config)
        if self.sweep is not None and "test" not in task.parts:
            raise ConfigError(
                f"{self.sweep.key}: these data have no test part to report on; set "
                f"data: {{validation: 0.05, test: 0.05}} in {self.base}."
            )
        steps = contender.budget.steps(config, task)
        return Plan(config.changed("training", steps=steps), task)
