"""Trains baselines: other kinds of models on the data of a run."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import equinox as eqx
import jax

from ..errors import InputError, at
from ..models import Model
from ..reporting import write_json
from ..training import Config, RunFolder, build_model, build_task, read_section, train
from ..training.configuration.names import find, parameters_of
from ..training.configuration.text import read_yaml
from ..training.folder.metrics import say
from ..training.steps.layout import primary


# Keys of `training` that only an equation in depth uses, with their defaults.
_DEPTH_KEYS = {"schedule": [], "costs": {}, "gradient": "direct", "compute_dtype": "float32"}


class Baseline(NamedTuple):
    """Another kind of model: the text of the user, and the configuration of its run."""

    text: str
    config: Config


def read_baselines(texts: Sequence[str], config: Config) -> list[Baseline]:
    """Reads baselines, several of them from a text with commas; see `baseline_of`.

    **Raises:** `InputError` for a kind of model that cannot learn the data.
    """
    baselines = [baseline_of(text, config) for joined in texts for text in joined.split(",")]
    task = build_task(config)
    batch = task.batch(0, 1, config.training.seed)
    for baseline in baselines:
        with at(f"--baseline {baseline.text}"):
            model = build_model(baseline.config, task, jax.random.key(0))
            eqx.filter_eval_shape(task.loss, model, batch)
    return baselines


def train_baselines(
    folder: RunFolder, baselines: Sequence[Baseline], runs: Path
) -> list[dict[str, Any]]:
    """Trains the baselines of a finished run. Returns a row for the run and for each baseline,
    and writes them to `baselines.json` in the folder of the run."""
    run_config = folder.load_config()
    rows = [_row(run_config.name, folder, run_config)]
    for index, (text, config) in enumerate(baselines, 1):
        say(f"baseline {index} of {len(baselines)}: {text}, on the data of {folder.path}")
        rows.append(_row(text, train(config, runs=runs), config))
        if primary():
            write_json(folder.path / "baselines.json", rows)
    return rows


def _row(name: str, folder: RunFolder, config: Config) -> dict[str, Any]:
    summary = folder.load_summary()
    losses = {f"{part}_loss": summary.get(f"{part}_loss") for part in ("validation", "test")}
    return {
        "model": name,
        "parameters": summary["parameters"],
        **losses,
        "learning_rate": config.optimizer.learning_rate,
        "steps": summary["steps"],
        "seconds": summary["seconds"],
        "run": str(folder.path),
    }


def baseline_of(text: str, config: Config) -> Baseline:
    """Reads a baseline: another kind of model on the data of the run `config`, with its
    batches, steps, optimizer and seed.

    **Arguments:**

    - `text`: a `model.kind`, such as `fno`; with changes of the section `optimizer` and options
      of the model, such as `fno:learning_rate=3e-3:num_modes=8`. Options that both kinds of
      models have, such as `modes`, stay as in the run.
    """
    where = f"--baseline {text}"
    pieces = text.split(":")
    # A class from a user's module has a colon in its name.
    kind = ":".join(x for x in pieces if "=" not in x)
    options = {
        name: read_yaml(value, where)
        for name, _, value in (x.partition("=") for x in pieces if "=" in x)
    }
    with at(where):
        parameters = parameters_of(find("model.kind", kind, Model))
    optimizer = {
        name: options.pop(name)
        for name in [*options]
        if name in vars(config.optimizer) and name not in parameters
    }
    shared = {name: x for name, x in config.model.options.items() if name in parameters}
    tree = config.as_tree()
    tree["model"] = {
        "kind": kind,
        "options": shared | options,
        "context": config.model.context,
        "patch": config.model.patch,
        "layers": 1,
    }
    tree |= {"name": f"{config.name}-{kind.rpartition(':')[2].lower()}", "control": {}}
    tree |= {"solver": {}, "training": tree["training"] | _DEPTH_KEYS}
    # Groups name weights that only the model of the run has.
    tree["optimizer"] |= {"groups": {}} | optimizer
    if tree["optimizer"]["kind"] == "muon":
        raise InputError(
            f"{where}: optimizer.kind=muon is for the matrices of operators; pass "
            f"--baseline {text}:kind=adamw."
        )
    return Baseline(text, read_section(Config, tree, where=where))
