"""Schemes compared by training: the same data, seeds and budget for each."""

import functools as ft
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import Field, PrivateAttr, model_validator
from rich.console import Console

from ... import training
from ...errors import InputError
from ...figures import Curve, plot_curves, plot_intervals, plot_panels
from ...pretrained.files import read_json
from ...reporting import write_json
from ...tasks import AbstractLoss, AbstractTask
from ...training import Config
from ...training.configuration.files import config_of, names_of_code
from ...training.configuration.section import Seed, folder_name
from ...training.folder.run_folder import tokenizer_of
from ...training.folder.starting import starting_model
from .budget import Budget, tokens_of_samples
from .comparison import AbstractComparison, Faults, Rows, about_sources, fingerprint
from .results import (
    LearningCurve,
    at_equal_cost,
    broken_rules,
    difference,
    figures_of,
    learning_curve,
    logged,
    verdict,
)
from .sweep import Sweep, Trial, Tuned, grid, tuned, write_sweep
from .trials import Made, Trials


# Columns of the losses at equal cost.
_EQUAL = {"at_equal_evaluations": "evaluations", "at_equal_time": "seconds"}


class Contender(NamedTuple):
    """A scheme within a budget, with a recipe or without, and whether there are several
    budgets."""

    budget: Budget
    recipe: str | None
    scheme: str
    several: bool

    @property
    def label(self) -> str:
        """Without its budget."""
        return self.scheme if self.recipe is None else f"{self.scheme} with {self.recipe}"

    @property
    def name(self) -> str:
        return self.label + f", {self.budget}" * self.several


class TrainingComparison(AbstractComparison):
    """Each scheme trained from scratch on the same data, seeds and budget. A run that was
    interrupted goes on.

    - `base`: a configuration of a run, relative to this file.
    - `sweep`: what is tuned for each scheme before, such as the learning rate.
    - `schemes`: name to the sections in which the scheme differs from the base.
    - `recipes`: name to sections that are no part of a scheme. Each scheme is trained without
      them and, as `<scheme> with <recipe>`, with each of them.
    - `reference`: the scheme from which the others' differences are taken, seed by seed, each
      with the same recipe; that of the reference with a recipe is taken from the reference
      alone.
    """

    mode: Literal["train"]
    base: Annotated[Path, Field(strict=False)]
    seeds: Annotated[tuple[Seed, ...], Field(min_length=1, strict=False)] = (0,)
    budget: Budget
    sweep: Sweep | None = None
    schemes: Annotated[dict[str, dict[str, Any]], Field(min_length=1)]
    recipes: dict[str, dict[str, Any]] = Field(default_factory=dict)
    reference: str | None = None

    _made_tasks: dict[Any, AbstractTask] = PrivateAttr(default_factory=dict)

    @model_validator(mode="after")
    def _each_run_once(self):
        names = [x.name for x in self._listed]
        faults = []
        if len(set(self.seeds)) < len(self.seeds):
            faults.append(f"seeds={list(self.seeds)}: give each of them once")
        for name in names:
            try:
                folder_name(Trial(name, (1.234e-300,) * len(self._swept), max(self.seeds)).name)
            except ValueError as error:
                faults.append(f"schemes.{name}: {error}")
        if len({Trial(name, (), 0).name for name in names}) < len(names):
            faults.append(
                f"schemes: two of {', '.join(names)} would share a folder, whose name "
                "has letters, digits and '.' only; rename one"
            )
        if self.reference not in (None, *self.schemes):
            known = ", ".join(self.schemes)
            faults.append(f"reference={self.reference!r}: it must be one of {known}")
        for place, parts in (("schemes", self.schemes), ("recipes", self.recipes)):
            for name, sections in parts.items():
                given = sections.get("training")
                for key, own in (("steps", "budget.amount"), ("seed", "seeds")):
                    if isinstance(given, dict) and key in given:
                        faults.append(
                            f"{place}.{name}.training.{key}: all runs have that of the "
                            f"comparison; write {own}"
                        )
        if faults:
            raise ValueError("; ".join(faults))
        return self

    @classmethod
    def check_parts(cls, tree: dict[str, Any]) -> None:
        """The configurations of all schemes."""
        known = {key: tree[key] for key in ("base", "schemes", "recipes") if key in tree}
        frame = {"mode": "train", "name": "parts", "budget": {"amount": 1}}
        try:
            parts = training.validated(cls, frame | known, "parts")
        except InputError:
            return  # said already
        faults = Faults()
        faults.each(parts._config, parts.contenders)
        faults.refuse()

    @property
    def contenders(self) -> dict[str, Contender]:
        """Each scheme without a recipe and with each, within each budget, by its name."""
        return {x.name: x for x in self._listed}

    @property
    def _several(self) -> bool:
        return len(self.budget.amount) > 1

    @property
    def _listed(self) -> list[Contender]:
        each = itertools.product(self.budget.each, (None, *self.recipes), self.schemes)
        return [Contender(*x, several=self._several) for x in each]

    @property
    def _reference(self) -> Contender | None:
        """The reference without a recipe, within the largest budget."""
        if self.reference is None:
            return None
        return self._listed[-1]._replace(scheme=self.reference, recipe=None)

    @property
    def _reference_name(self) -> str:
        """The scheme from which differences are taken, for headings."""
        same = ", with the same recipe" * bool(self.recipes)
        return self._reference.name + same if self._reference else ""

    @property
    def _references(self) -> dict[str, str]:
        """For each contender but the reference the one from which its difference is taken."""
        if (own := self._reference) is None:
            return {}
        return {
            name: (own if x.scheme == own.scheme else own._replace(recipe=x.recipe)).name
            for name, x in self.contenders.items()
            if x != own
        }

    @property
    def _swept(self) -> dict[str, tuple[float, ...]]:
        return self.sweep.keys if self.sweep else {}

    def measure(self, folder: Path, console: Console) -> tuple[str, Rows]:
        trials, planned = self._checked(folder, console)
        # The planned runs tune each scheme; then the other seeds run at its best values.
        first, *others = self.seeds
        names = [*trials.plans]
        trials.forecast(planned, names * len(others))
        chosen = [
            tuned(name, self.sweep, first, trials.loss, trials.possible) for name in names
        ]
        repeated = [t.best._replace(seed=seed) for seed in others for t in chosen]
        trials.forecast(repeated)
        for trial in repeated:
            trials.loss(trial)
        rows = self._rows(folder, chosen)
        if self.sweep:
            write_sweep(folder, self.sweep, chosen, f"validation {self._loss.label}")
        used = [trial for tuning in chosen for trial in tuning.losses]
        used += [t.best._replace(seed=seed) for t in chosen for seed in others]
        code: dict[str, list[str]] = {}
        for trial in used:
            code.setdefault(Made(trials.folder, trial).code, []).append(trial.name)
        warmups = {}
        for row in rows:
            usual = self._configs[row["scheme"]].optimizer.warmup
            warmups[row["scheme"]] = row.get("optimizer.warmup", usual)
        # What decides on which samples the losses of a scheme are, the reference first.
        samples: dict[str, Any] = {self._reference.name: None} if self._reference else {}
        for name, config in self._configs.items():
            sized = self._tasks[name].sized_by_context and config.model.context
            samples[name] = config.data, self._tokenizers[name], sized
        tested = self._reported == "test_loss"
        broken = broken_rules(len(self.seeds), self._swept, tested, rows, warmups, samples)
        sources = about_sources(code)
        said = verdict(rows, self._references)
        for sentence in (*broken, *[sources] * (not sources.startswith("Code: "))):
            console.print(f"note: {sentence}")
        if said:
            console.print(said)
        # The rules that are broken follow the conclusion that they limit.
        return said + " ".join((*broken, self._about(), sources)), rows

    def _checked(self, folder: Path, console: Console) -> tuple[Trials, list[Trial]]:
        """The runs that are planned, after all that is wrong with any of them was refused."""
        faults = Faults()
        place = "schemes.{}".format
        configs = faults.each(self._config, self.contenders)
        tasks = faults.each(lambda name: self._task(configs[name]), configs, place)
        if self.sweep is not None and any("test" not in x.parts for x in tasks.values()):
            faults.add(
                "sweep: these data have no test part, and what is tuned on validation data has "
                "to be reported on others; write data: {validation: 0.05, test: 0.05} in "
                f"{self.base}."
            )
        if self.budget.measured:
            faults.refuse()
        # Another measurement of seconds gives other steps, and an interrupted run could not go
        # on with them.
        file = folder / "steps.json"
        known = read_json(file) if file.exists() else {}
        if any(type(steps) is not int or steps < 1 for steps in known.values()):
            faults.add(f"{file} is damaged; restore it, or remove it and {folder / 'runs'}.")
            faults.refuse()

        def plan(name: str) -> Config:
            config = configs[name]
            # Runs that are there may have been made when its code was another.
            if names_of_code(config.model_dump(mode="json")):
                starting_model(config, tasks[name])
            budget = self.contenders[name].budget
            key = fingerprint(str(budget), name, config.model_dump_json())
            if not budget.measured or key not in known:
                known[key] = budget.steps(config, tasks[name])
            return config.changed("training", steps=known[key])

        plans = faults.each(plan, tasks, place)
        trials = Trials(folder / "runs", plans, tuple(self._swept), tasks, console)
        planned = [t for name in plans for t in grid(name, self._swept, self.seeds[0])]
        # What may change what a step costs, so that a budget of costs gives other steps.
        costly = [key for key in self._swept if not key.startswith("optimizer.")]
        costly *= self.budget.unit != "steps"

        def check(trial: Trial) -> None:
            config = trials.config(trial)  # what cannot be fails here
            trials.done(trial)  # and what was made with another configuration
            allowed = plans[trial.scheme].training.steps
            budget = self.contenders[trial.scheme].budget
            if costly and (
                self.budget.measured or budget.steps(config, tasks[trial.scheme]) != allowed
            ):
                raise InputError(
                    f"sweep: with a budget of {budget} the steps of a run are those of "
                    f"its scheme, and {', '.join(costly)} may change what a step costs; write "
                    "budget.unit=steps, or make schemes that differ in it."
                )

        faults.each(check, planned)
        faults.refuse()
        if self.budget.measured:
            write_json(file, known)
        return trials, planned

    def _about(self) -> str:
        sweep = difference = equal = ""
        if not self._several:
            equal = (
                "At equal evaluations, and at equal time of training steps, a scheme has the "
                "validation loss of its learning curve where it has cost as much as the "
                "cheapest of them in all; its learning rate has not decayed yet at that "
                "point. "
            )
        if self.sweep is not None:
            sweep = (
                f"Of {', '.join(self._swept)} each scheme has the values with the lowest "
                "validation loss for the first seed; sweep.json and a figure have all that "
                "were tried. A best value at the edge of those tried is named so. "
            )
        if self.reference is not None:
            recipes = (
                f" with the same recipe ({', '.join(self.recipes)}), and of {self.reference} "
                "with a recipe that to itself without"
            ) * bool(self.recipes)
            largest = " within the largest budget" * self._several
            difference = (
                f"The difference is that to {self.reference}{recipes}{largest}, seed by seed; "
                "its 95 % interval (Student) is the difference ± the half of it. "
            )
        how = " (in steps whose time was measured before)" * self.budget.measured
        return (
            f"Each scheme trained from scratch with {self.budget}{how} for each of the seeds "
            f"{', '.join(map(str, self.seeds))}; otherwise as {self.base.name}. "
            f"{sweep}{difference}Loss and other figures are means over seeds on all samples of "
            "the part that they name; the spread is the standard deviation of "
            f"{self._reported}. {equal}Times are medians and depend on what else the machine "
            "did."
        )

    @property
    def headings(self) -> dict[str, str]:
        reported = self._reported.replace("_", " ")
        losses = {
            f"{part}_loss": f"{part}: {self._loss.label}" for part in ("validation", "test")
        }
        return losses | {
            "spread": f"standard deviation of the {reported} over seeds",
            "difference": f"difference to {self._reference_name}",
            "half_width": "half of its 95 % interval",
            "at_edge": "best value at the edge of the sweep",
            "at_equal_evaluations": "validation loss at equal field evaluations",
            "at_equal_time": "validation loss at equal training time",
            "evaluations_per_step": "field evaluations of a forward solve",
            "steps": "optimiser steps",
            "field_evaluations": "field evaluations of the training",
            "tokens_per_second": "tokens per second of training",
            "seconds": "seconds of a run",
            "start": "weights that training began with",
            "seeds": f"{reported} of each seed",
        }

    def shown(self, rows: Rows) -> Rows:
        """The result, what was tuned, the differences, and the costs."""
        bits = self._reported.replace("loss", "bits_per_byte")
        columns = [
            *(self._reported, bits, "spread", "difference", *_EQUAL),
            *("parameters", "evaluations_per_step", "tokens_per_second"),
        ]
        columns = [x for x in columns if any(row.get(x) is not None for row in rows)]
        found = []
        for row in rows:
            tuned = {key.rpartition(".")[2]: row[key] for key in self._swept}
            cells = {"scheme": row["scheme"], **tuned, **{x: row.get(x) for x in columns}}
            if row.get("half_width") is not None:
                cells["difference"] = f"{row['difference']:.3g} ± {row['half_width']:.2g}"
            found.append(cells | ({"failure": row["failure"]} if "failure" in row else {}))
        return found

    def draw(self, folder: Path, rows: Rows) -> None:
        """Learning curves, from the best of the seeds to the worst, the loss against what it
        cost, and the differences."""
        curves = self._curves(folder, rows)
        y = f"validation {self._loss.label}"
        reported = f"{self._reported.removesuffix('_loss')} {self._loss.label}"
        by_step = {name: (x.steps, x.losses, x.band) for name, x in curves.items()}
        look = dict(title="Learning curves", x="optimiser step", y=y)
        plot_curves(folder / "loss_by_step.png", by_step, **look)
        by_cost = {name: (x.evaluations, x.losses, x.band) for name, x in curves.items()}
        look = dict(title="Loss and cost", x="field evaluations of the training", y=y)
        plot_curves(folder / "loss_by_cost.png", by_cost, **look)
        if self._several:
            # The losses at the ends of runs against what the runs have cost, a line for each
            # scheme through its means, and at each cost one from the best of the seeds to the
            # worst.
            found: dict[str, list[dict[str, Any]]] = {}
            for row in rows:
                if "failure" not in row:
                    found.setdefault(self.contenders[row["scheme"]].label, []).append(row)
            lines = []
            for label, own in found.items():
                own = sorted(own, key=lambda row: row["field_evaluations"])
                spent = [row["field_evaluations"] for row in own]
                lines.append(Curve(label, spent, [row[self._reported] for row in own]))
                for x, row in zip(spent, own, strict=True):
                    lines.append(Curve(label, [x] * len(row["seeds"]), row["seeds"]))
            look = dict(title="Loss at the end of runs of several costs", marker=".")
            look |= dict(x="field evaluations of the training", y=reported)
            plot_panels(folder / "loss_by_budget.png", {"": lines}, **look)
        differences = {
            row["scheme"]: (row["difference"], row["half_width"])
            for row in rows
            if row.get("half_width") is not None
        }
        if differences:
            title = f"Difference to {self._reference_name}, with its 95 % interval"
            plot_intervals(folder / "differences.png", differences, title=title, x=reported)

    def _rows(self, folder: Path, chosen: Sequence[Tuned]) -> Rows:
        """A row for each scheme, the best first, and those of which a run failed, which have no
        figures, last."""
        rows: Rows = []
        for (scheme, values, _), _, at_edge in chosen:
            row = {"scheme": scheme, **dict(zip(self._swept, values, strict=True))}
            row |= {"at_edge": ", ".join(at_edge) or None} if self._swept else {}
            made = self._made(folder, row)
            if failures := [*filter(None, (x.failure for x in made))]:
                row |= {self._reported: None, "failure": failures[0]}
            else:
                row |= figures_of(self._results(made), self._reported)
                if (start := made[0].run.start) is not None:
                    row["start"] = ", ".join(f"{name} {x}" for name, x in start.items())
            rows.append(row)
        if references := self._references:
            # Losses on other data, such as other tokens, have no difference.
            data = {name: (x.data, self._tokenizers[name]) for name, x in self._configs.items()}
            same = {x: y for x, y in references.items() if data[x] == data[y]}
            rows = [{**x, **difference(x, rows, same.get(x["scheme"]))} for x in rows]
        curves = {} if self._several else self._curves(folder, rows)
        if curves:
            for column, cost in _EQUAL.items():
                losses = at_equal_cost(curves, cost)
                rows = [{**row, column: losses.get(row["scheme"])} for row in rows]
        return sorted(rows, key=lambda row: (row[self._reported] is None, row[self._reported]))

    def _made(self, folder: Path, row: dict[str, Any]) -> list[Made]:
        """The runs of a row, one for each seed."""
        values = tuple(row[key] for key in self._swept)
        trials = (Trial(row["scheme"], values, seed) for seed in self.seeds)
        return [Made(folder / "runs", trial) for trial in trials]

    def _results(self, made: Sequence[Made]) -> list[dict[str, Any]]:
        """The results of the runs of a row, which have the same figures at the same steps."""
        found = [x.result for x in made]
        for one, result in zip(made, found, strict=True):
            if lost := (found[0].keys() | {self._reported}) - result.keys():
                raise InputError(
                    f"{one.run.summary} is damaged: it has no {' and '.join(sorted(lost))}; "
                    "restore it, or remove it, so that the run is resumed and writes it again."
                )
            steps, others = ([*logged(x, "validation_loss")] for x in (result, found[0]))
            if steps != others:
                raise InputError(
                    f"{one.run.metrics} is cut or edited: it has not the evaluations of "
                    f"{made[0].run.metrics}. Restore it, or remove {one.run.path}, so that the "
                    "run is made again."
                )
        return found

    def _curves(self, folder: Path, rows: Rows) -> dict[str, LearningCurve]:
        """The learning curves of the schemes that did not fail."""
        curves = {}
        for row in rows:
            if "failure" not in row:
                scheme = row["scheme"]
                config = self._configs[scheme]
                task = self._tasks[scheme]
                size = row.get("training.batch_size", config.training.batch_size)
                # Each draws the meshes of its own seed.
                seeded = (config.changed("training", seed=seed) for seed in self.seeds)
                tokens = [size * tokens_of_samples(x, task, row["steps"]) for x in seeded]
                runs = self._results(self._made(folder, row))
                curves[scheme] = learning_curve(runs, tokens)
        return curves

    @ft.cached_property
    def _tokenizers(self) -> dict[str, bytes | None]:
        """The tokenizer of each scheme, which may come from a checkpoint."""
        return {name: tokenizer_of(task) for name, task in self._tasks.items()}

    @property
    def _reported(self) -> str:
        """The loss on other data than what was chosen by, where there are others."""
        tested = all("test" in task.parts for task in self._tasks.values())
        return "test_loss" if tested else "validation_loss"

    @property
    def _loss(self) -> AbstractLoss:
        return next(iter(self._tasks.values())).loss

    @ft.cached_property
    def _configs(self) -> dict[str, Config]:
        return {name: self._config(name) for name in self.contenders}

    def _config(self, name: str) -> Config:
        contender = self.contenders[name]
        recipe = {} if contender.recipe is None else self.recipes[contender.recipe]
        tree = dict(self._base_tree)
        for change in (self.schemes[contender.scheme], recipe):
            for section, values in change.items():
                # A change that gives a solver gives the whole of it.
                replaced = section == "solver" or not isinstance(values, dict)
                before = tree.get(section) or {}
                # A section of one key may be written as its value.
                before = {"kind": before} if isinstance(before, str) else before
                tree[section] = values if replaced else {**before, **values}
        where = f"{self.base} with schemes.{contender.label}"
        return config_of(tree, where)

    @ft.cached_property
    def _base_tree(self) -> dict[str, Any]:
        return training.read_tree(self.base)

    @ft.cached_property
    def _tasks(self) -> dict[str, AbstractTask]:
        return {name: self._task(config) for name, config in self._configs.items()}

    def _task(self, config: Config) -> AbstractTask:
        """The data of a configuration; those that are the same are made once."""
        model = config.model
        data = config.data.model_dump_json()
        made_of = data, model.context, model.side_of_token, model.pretrained, model.run
        if made_of not in self._made_tasks:
            self._made_tasks[made_of] = training.build_task(config)
        return self._made_tasks[made_of]
