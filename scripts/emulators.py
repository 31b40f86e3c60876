"""Trains and tests emulators of partial differential equations by APEBench: models of this
package beside its networks.

A model of this package is a configuration, by its name or path, with changes behind colons:
`emulators/split_known:model.hidden=64`. An operator `constant_coefficients` without
coefficients gets the linear part of the scenario. The networks are `conv`, `res`, `unet`, `dil`
and `fno`, as published, or any other by its text, such as "Res;26;8;relu". Their learning rate
is as published, 1e-3, or set: `res:optimizer.learning_rate=3e-3`.
`coarse:64` is the solver of the data on 64 points, without training.

A scenario is a name of APEBench, with options:
`diff_burgers:num_spatial_dims=2:num_points=64`. Its option `test_seed` draws other trajectories
for the test: choose recipes on them. `train='sup;5'` trains through five steps of a roll-out.

The table has the geometric mean of the relative error over the first 100 steps of the roll-out:
median and quartiles of the seeds, on the points of the training and, with --points, on others.
With --reference it has the mean difference to that model, seed by seed, and its 95 % interval.
The seconds of training include compiling. A stopped study continues when it is started again.
"""

# APEBench is optional.
# pyright: reportMissingImports=false

import argparse
import ast
import functools as ft
import itertools
import json
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import equinox as eqx
import jax
import numpy as np

from commands import start, trajectories
from commands.trajectories import STEPS, Row, clip_errors, mean_of
from ide_transformer import InputError, training
from ide_transformer.commands.options import (
    config_file,
    figure_file,
    floats,
    integers,
    names,
    results_file,
)
from ide_transformer.compare import fingerprint
from ide_transformer.compare.results import difference
from ide_transformer.contrib import ChannelsFirst
from ide_transformer.packages import require
from ide_transformer.reporting import show_table, write_json
from ide_transformer.training.configuration.files import override_config
from ide_transformer.training.folder.run_folder import source


EXAMPLES = """\
  python scripts/emulators.py --steps 1000 --json emulators.json --figure errors.png
  python scripts/emulators.py --scenarios diff_ks_cons --models emulators/local,res \\
      --seeds 0,1,2,3,4 --points 80,320 --json emulators.json
  python scripts/emulators.py --scenarios diff_burgers:test_seed=1 --json choice.json \\
      --models emulators/split_known,emulators/split_known:model.hidden=64
"""
# As published, for one dimension.
NETWORKS = {
    "conv": "Conv;34;10;relu",
    "res": "Res;26;8;relu",
    "unet": "UNet;12;2;relu",
    "dil": "Dil;2;32;2;relu",
    "fno": "FNO;12;18;4;gelu",
}
# A solver on fewer points.
COARSE = "coarse:"
SCENARIOS = ["diff_burgers", "diff_kdv", "diff_ks_cons"]
# The linear parts of scenarios, by the order of the derivative: the names and the signs of
# `constant_coefficients`.
LINEAR = {
    "damping": -1,
    "advection": -1,
    "diffusion": 1,
    "dispersion": 1,
    "hyper_diffusion": -1,
}


class Cell(NamedTuple):
    """A run."""

    scenario: str
    model: str
    seed: int
    steps: int


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", type=results_file, required=True, help="the finished runs")
    parser.add_argument("--scenarios", type=names, default=SCENARIOS)
    parser.add_argument("--models", type=names, default=["emulators/local", *NETWORKS])
    parser.add_argument("--seeds", type=integers, default=[0], help="default: 0")
    parser.add_argument("--steps", type=int, default=10_000, help="as published: 10000")
    about = "points of further tests, such as 80,320"
    parser.add_argument("--points", type=integers, default=[], help=about)
    about = "durations of further tests in steps, such as 0.5,2"
    parser.add_argument("--durations", type=floats, default=[], help=about)
    about = "also test statistics over 1000 steps"
    parser.add_argument("--long", action="store_true", help=about)
    parser.add_argument("--figure", type=figure_file, help="the errors over time")
    parser.add_argument("--reference", help="a model, for differences")


def run(options: argparse.Namespace) -> None:
    require("apebench", "apebench", "Emulators are trained and tested by")
    # The first seed of every line comes first.
    lines = itertools.product(options.seeds, options.scenarios, options.models)
    cells = [Cell(scenario, model, seed, options.steps) for seed, scenario, model in lines]
    # Rejects misspelt names before anything is trained.
    for cell in dict.fromkeys(cell._replace(seed=0) for cell in cells):
        eqx.filter_eval_shape(network_of, cell, jax.random.PRNGKey(0))
    for number, cell in enumerate(cells, 1):
        print(f"{number} of {len(cells)}: {cell.scenario}, {cell.model}, seed {cell.seed}")
        run_once(cell, options)
    show(cells, options)


def run_once(cell: Cell, options: argparse.Namespace) -> None:
    """Trains and tests a network, unless its row exists and has all tests."""
    key = cell._asdict()
    checksum = fingerprint(*settings_of(cell))
    row = find_row(options.json, key, checksum)
    if row is not None and is_complete(row, options):
        return
    scenario, train_config = scenario_of(cell)
    init_key, shuffle_key = jax.random.split(jax.random.PRNGKey(cell.seed))
    network = network_of(cell, init_key)
    start_time = time.perf_counter()
    weights = []
    if not cell.model.startswith(COARSE):
        train = scenario.get_trainer(train_config=train_config)
        network, *_ = jax.block_until_ready(
            train(network, shuffle_key, record_loss_every=scenario.record_loss_every)
        )
        weights = jax.tree.leaves(eqx.filter(network, eqx.is_array))
    seconds = time.perf_counter() - start_time
    data = scenario.get_test_data()
    row = {
        **key,
        "made_of": checksum,
        "code": source(),
        "parameters": sum(x.size for x in weights),
        "seconds": round(seconds, 1),
        "seconds_of_a_step": trajectories.seconds_of(network, data),
        "errors": trajectories.errors(network, scenario),
        "others": {str(x): trajectories.errors_on(network, data, x) for x in options.points},
        "durations": {
            str(x): trajectories.errors_over(network, scenario, data, x)
            for x in options.durations
        },
    }
    if options.long:
        row["long"] = trajectories.statistics(network, scenario, data)
    # Another process may have written rows meanwhile.
    others = [x for x in read_rows(options.json) if not key.items() <= x.items()]
    write_json(options.json, [*others, row])
    print(f"   error {mean_of(row['errors']):.4g}, {row['seconds']:.0f} s of training")
    # The number of compiled programs that a process may hold is limited.
    jax.clear_caches()


def read_rows(path: Path) -> list[Row]:
    """The rows of a file, which need not exist."""
    return list(json.loads(path.read_bytes())) if path.is_file() else []


def find_row(path: Path, key: Row, checksum: str) -> Row | None:
    """The row that has the entries of `key`, if there is one.

    **Raises:** `InputError` if its checksum of settings, `made_of`, is another one.
    """
    for row in read_rows(path):
        if key.items() <= row.items():
            if row.get("made_of", checksum) != checksum:
                raise InputError(
                    f"{path}: the row of {key} was made with other settings; restore them, or "
                    "pass another file to --json."
                )
            return row
    return None


def is_complete(row: Row, options: argparse.Namespace) -> bool:
    """Whether a row has all tests that the options choose."""
    points, durations = row["others"].keys(), row.get("durations", {}).keys()
    return (
        {str(x) for x in options.points} <= points
        and {str(x) for x in options.durations} <= durations
        and (not options.long or "long" in row)
    )


@ft.cache
def settings_of(cell: Cell) -> tuple[str, ...]:
    """Everything that a run depends on, except the code."""
    import apebench

    config = config_of(cell.model)
    model = text_of(cell.model) if config is None else training.dump_config(config)
    return model, repr(scenario_of(cell)[0]), apebench.__version__


def scenario_of(cell: Cell) -> tuple[Any, str]:
    """The scenario of APEBench, and its kind of training."""
    from apebench.scenarios import scenario_dict

    name, *options = cell.scenario.split(":")
    rate = np.format_float_scientific(learning_rate_of(cell.model), trim="-", exp_digits=1)
    try:
        scenario_options = {
            key: ast.literal_eval(x) for key, x in (y.split("=") for y in options)
        }
        # At 10,000 steps and a rate of 1e-3 this is its default.
        optimizer = f"adam;{cell.steps};warmup_cosine;0.0;{rate};{cell.steps // 5}"
        train_config = scenario_options.pop("train", "one")
        return scenario_dict[name](
            **{"optim_config": optimizer, **scenario_options}
        ), train_config
    except (KeyError, TypeError, ValueError, SyntaxError) as error:
        raise InputError(f"--scenarios {cell.scenario}: {error!r}") from None


def network_of(cell: Cell, key: Any) -> Any:
    """The network of a run, `[channels, *points] -> [channels, *points]`, before training."""
    from apebench.components import architecture_dict

    config = config_of(cell.model)
    text = text_of(cell.model)
    scenario, _ = scenario_of(cell)
    if cell.model.startswith(COARSE):
        points = cell.model.removeprefix(COARSE)
        if not points.isdecimal() or int(points) < 8:
            raise InputError(f"--models {cell.model}: pass 8 points or more: coarse:64.")
        return trajectories.coarse_solver(scenario, int(points))
    if config is not None:
        # APEBench asks for an activation, too.
        config = with_linear_part(config, scenario)
        architecture_dict[cell.model.lower()] = ft.partial(emulator, config)
        text = f"{cell.model};identity"
    try:
        return scenario.get_neural_stepper(task_config="predict", network_config=text, key=key)
    except (KeyError, IndexError) as error:
        raise InputError(
            f"--models {cell.model}: {error!r}; pass a configuration, one of "
            f"{', '.join(NETWORKS)}, or a text such as {NETWORKS['res']}."
        ) from None


def config_of(model: str) -> training.Config | None:
    """The configuration of a model of this package; `None` for a network of APEBench."""
    name, *changes = model.split(":")
    try:
        path = config_file(name)
    except InputError:
        return None
    return training.load_config(path, changes)


def text_of(model: str) -> str:
    """The name of a network in APEBench."""
    name, *_ = model.split(":")
    return NETWORKS.get(name, name)


def learning_rate_of(model: str) -> float:
    """The highest rate of the training of a model."""
    config = config_of(model)
    if config is not None:
        return config.optimizer.learning_rate
    _, _, change = model.partition(":")
    if not change or model.startswith(COARSE):
        return 1e-3
    try:
        return float(change.removeprefix("optimizer.learning_rate="))
    except ValueError:
        raise InputError(
            f"--models {model}: a network takes one change, optimizer.learning_rate=3e-3."
        ) from None


def linear_part_of(scenario: Any) -> dict[str, float]:
    """The coefficients of the linear part of a scenario, over a step of its data. Its
    difficulties are `γ_j = α_j Nʲ 2ʲ⁻¹ D` of `u_t = Σ_j α_j ∂ʲu` on a circle of length 1 over a
    time of 1, N points and D dimensions; `α_0 u` counts once for each."""
    points, dimension = scenario.num_points, scenario.num_spatial_dims
    coefficients = {}
    for order, (name, sign) in enumerate(LINEAR.items()):
        factor = points**order * 2 ** (order - 1) * dimension if order else 1 / dimension
        coefficients[name] = sign * scenario.gammas[order] / factor
    return coefficients


def with_linear_part(config: training.Config, scenario: Any) -> training.Config:
    """Gives the linear part of a scenario to an operator `constant_coefficients` that has no
    coefficients."""
    dimension = scenario.num_spatial_dims
    depth = config.control.horizon or config.model.layers
    options = {name: x / depth for name, x in linear_part_of(scenario).items()}
    kind = "constant_coefficients"
    linear_part = {"kind": kind, "options": {**options, "dimension": dimension}}
    unknown = kind, {"kind": kind, "options": {"dimension": dimension}}
    written = [operator.tree for operator in config.model.operators]
    operators = [linear_part if x in unknown else x for x in written]
    return override_config(config, [f"model.operators={json.dumps(operators)}"])


def emulator(
    config: training.Config,
    text: str,
    dimension: int,
    points: int,
    channels: int,
    activation: Any,
    key: Any,
) -> ChannelsFirst:
    """A model of this package, by the arguments of a network of APEBench."""
    grid = points if dimension == 1 else (points,) * dimension
    sizes = {"points": grid, "channels": channels}
    return ChannelsFirst(training.build_model_of_size(config, sizes, key))


def show(cells: list[Cell], options: argparse.Namespace) -> None:
    """A table for each scenario, and the figure."""
    from ide_transformer.figures import Curve, plot_panels

    all_rows = read_rows(options.json)
    panels: dict[str, list[Curve]] = {}
    tables: dict[str, list[Row]] = {}
    lines: dict[tuple[str, str], list[Row]] = {}
    for cell in cells:
        cell_rows = [row for row in all_rows if cell._asdict().items() <= row.items()]
        lines.setdefault((cell.scenario, cell.model), []).extend(cell_rows)
    for (scenario, model), model_rows in lines.items():
        line = line_of(model, model_rows, options)
        if other := lines.get((scenario, options.reference)):
            means = [[mean_of(row["errors"]) for row in x] for x in (model_rows, other)]
            line |= difference(*means) if other is not model_rows else {}
        tables.setdefault(scenario, []).append(line)
        median = np.median([clip_errors(row["errors"]) for row in model_rows], axis=0)
        curve = Curve(model, np.arange(1, len(median) + 1), median)
        panels.setdefault(scenario, []).append(curve)
    for scenario, table in tables.items():
        print(scenario)
        show_table(table)
    if options.figure is not None:
        labels = dict(x="steps", y="relative error, median of the seeds")
        plot_panels(options.figure, panels, log="y", **labels)
        print(options.figure)


def line_of(model: str, rows: list[Row], options: argparse.Namespace) -> Row:
    """A line of a table: the medians and quartiles over seeds."""
    line: Row = {"model": model, "seeds": len(rows), "parameters": rows[0]["parameters"]}
    tests = {"error": [(row["errors"], 1.0) for row in rows]}
    for n in options.points:
        tests[f"{n} points"] = [(row["others"][str(n)], 1.0) for row in rows]
    for duration in options.durations:
        errors_over = [row["durations"][str(duration)] for row in rows]
        tests[f"{duration:g} of a step"] = [(x, duration) for x in errors_over if x]
    for name, errors in tests.items():
        line[name] = describe([mean_of(*x) for x in errors])
    line["blew up"] = sum(clip_errors(row["errors"])[:STEPS].max() > 10 for row in rows)
    if options.long:
        line |= {
            name: describe([row["long"][name] for row in rows if row["long"][name] is not None])
            for name in rows[0]["long"]
        }
    line["seconds"] = float(np.median([row["seconds"] for row in rows]))
    return line


def describe(values: list[float]) -> str:
    """The median, and the quartiles if there are several values."""
    if not values:
        return ""
    low, middle, high = np.quantile(values, [0.25, 0.5, 0.75])
    return f"{middle:.4g}" + (f" ({low:.4g}, {high:.4g})" if len(values) > 1 else "")


if __name__ == "__main__":
    start(sys.modules[__name__])
