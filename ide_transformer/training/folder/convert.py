"""Turns a checkpoint of another library into a run, and a run into a checkpoint."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import tokenizers as tk

from ...arguments import checked
from ...equation import number_of_weights
from ...errors import naming
from ...models import LanguageModel, Model, is_built_as
from ...pretrained import find_pretrained, save_pretrained
from ...pretrained.files import read_json
from ...reporting import markdown_table
from ...tasks import PretrainedTokenizer, end_token
from ..configuration.config import Config
from ..configuration.files import apply_overrides, config_of, write_yaml
from ..steps.build import build_model_of_size
from ..steps.schedule import programs_of
from ..steps.step import Weights
from .checkpoints import Checkpoints, Which
from .loading import restored
from .metrics import read_metrics
from .run_folder import RunFolder, new_folder


_TEXTS = """\
from transformers import AutoModelForCausalLM, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("{path}")
model = AutoModelForCausalLM.from_pretrained("{path}")
prompt = tokenizer({prompt}, return_tensors="pt")
written = model.generate(**prompt, do_sample=True, max_length={context})
print(tokenizer.decode(written[0]))"""
_TOKENS = """\
import torch
from transformers import AutoModelForCausalLM

model = AutoModelForCausalLM.from_pretrained("{path}")
print(model(torch.tensor([[0, 1, 2]])).logits)"""
_IMAGES = """\
import torch
from transformers import AutoModelForImageClassification

model = AutoModelForImageClassification.from_pretrained("{path}")
images = torch.zeros(1, {channels}, {rows}, {columns})  # scaled like the training images
print(model(pixel_values=images).logits)"""
_CARD = """\
---
# license: say under which one you publish this
library_name: transformers
pipeline_tag: {task}
tags: [ide_transformer]
---

# {path}

A model in the layout of `{kind}`, trained with ide_transformer. Its layers are the steps of an
operator splitting (Lie–Trotter, one step of Euler's method for each operator) of the equation
`u_t = attention(u) + feed-forward(u)`, which is an ordinary pre-norm Transformer.

## Use

```python
{use}
```

## Training

{table}

`ide-transformer train {name}.yaml` trains it, with this file:

```yaml
{config}```

`ide-transformer convert {run} {path}` wrote this folder.
"""


def import_pretrained(
    path: str | Path, name: str, runs: str | Path, overrides: Sequence[str] = ()
) -> RunFolder:
    """Makes a run at step 0, `runs/name`, with weights, scheme and tokenizer of a checkpoint.

    **Arguments:**

    - `path`: what `load_pretrained` takes.
    - `overrides`: further keys of its configuration, `key=value`. A model of images needs
      `data.name`, and `data.path` if the data are in a folder.

    **Raises:** `InputError` if the data need a model of another kind.
    """
    found = find_pretrained(path)
    # A path is stored whole, so that the run can be read from any folder.
    kept = str(found.resolve()) if Path(path).exists() else str(path)
    runs = Path(runs)
    tree: dict[str, Any] = {"name": name, "model": {"pretrained": kept}}
    origin = apply_overrides(tree, overrides)
    config = config_of(tree, f"{runs / name}", origin)
    key = jax.random.key(config.training.seed)
    model = build_model_of_size(config, {}, key)
    if is_built_as(model, LanguageModel) and "model.context" not in origin:
        # The model must be able to take the windows of its data.
        context = min(config.model.context, model.inputs.context)
        config = config.changed("model", context=context)
    state = programs_of(config, model).start(model, key)

    def save(tokenizer: Path) -> None:
        if is_built_as(model, LanguageModel):
            PretrainedTokenizer.from_pretrained(found).save(tokenizer)

    folder = new_folder(config, runs, save)
    with folder.sole_use(), Checkpoints(folder, config, writes=True) as checkpoints:
        checkpoints.save(0, state)
    return folder


@checked
def export_run(
    run: str | Path,
    path: str | Path,
    *,
    checkpoint: Which = "newest",
    weights: Weights = "trained",
    trust: bool = False,
    adapter: bool = False,
) -> None:
    """Writes a run in a layout of Hugging Face, see `save_pretrained`, with its tokenizer and a
    model card, `README.md`. A run that began from a checkpoint keeps the layout and the files
    of the checkpoint, or is written as an `adapter` to it. For the arguments see `load_run`.

    **Raises:** `InputError` that names all differences from the nearest layout.
    """
    path = Path(path)
    folder = RunFolder(run)
    config = folder.load_config(trust)
    model, step = restored(folder, config, checkpoint, weights)
    source = config.model.pretrained
    if source is not None or adapter:
        save_pretrained(model, path, like=source, adapter=adapter)
        return
    tokenizer = folder.known_tokenizer
    library = None if tokenizer is None else tokenizer.for_others()
    save_pretrained(model, path)
    files: dict[str, str] = {}
    if library is not None:
        options: dict[str, Any] = {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "model_max_length": config.model.context,
            "clean_up_tokenization_spaces": False,
            # The default would add token types, which these models do not take.
            "model_input_names": ["input_ids", "attention_mask"],
        }
        if (end := end_token(library)) is not None:
            options["eos_token"] = end
            generation = {"eos_token_id": library.token_to_id(end)}
            files["generation_config.json"] = json.dumps(generation, indent=2)
        files["tokenizer_config.json"] = json.dumps(options, indent=2)
        files["tokenizer.json"] = library.to_str(pretty=True)
    figures = _figures(folder, config, step, weights)
    files["README.md"] = _card(folder, config, model, step, figures, library, path)
    for name, text in files.items():
        with naming(path / name):
            (path / name).write_text(text, encoding="utf-8")


def _card(
    folder: RunFolder,
    config: Config,
    model: Model,
    step: int,
    figures: dict[str, float],
    tokenizer: tk.Tokenizer | None,
    path: Path,
) -> str:
    """The model card in Markdown. The user fills in the licence."""
    kind = read_json(path / "config.json")["model_type"]
    tree: dict[str, Any] = config.model_dump(mode="json", exclude_defaults=True)
    tree |= {"name": config.name}
    # Its default depends on other keys.
    tree.setdefault("optimizer", {})["schedule"] = config.optimizer.schedule
    if (data := config.data.path) is not None:
        tree["data"]["path"] = data.name  # the folders of this machine are private
    if (before := config.model.run) is not None:
        tree["model"]["run"] = Path(before).name
    task, use = _use(folder, model, tokenizer, path)
    facts: dict[str, Any] = {
        "data": config.data.name + ("" if data is None else f", {data.name}"),
        "weights": number_of_weights(model),
        "layers": model.layers,
        "features": model.features,
        "steps": f"{step:,} of {config.training.steps:,}",
        "samples per step": config.training.batch_size,
        "optimiser": f"{config.optimizer.kind}, learning rate {config.optimizer.learning_rate}",
        **{name.replace("_", " "): f"{value:.4f}" for name, value in figures.items()},
        "trained by": "ide_transformer " + "; ".join(folder.sources),
    }
    return _CARD.format(
        task=task,
        name=config.name,
        kind=kind,
        use=use,
        table=markdown_table(("", ""), [(key, str(value)) for key, value in facts.items()]),
        config=write_yaml(tree),
        run=Path("runs", folder.path.name),
        path=path.name,
    )


def _use(
    folder: RunFolder, model: Model, tokenizer: tk.Tokenizer | None, path: Path
) -> tuple[str, str]:
    """The name of the task on the hub of Hugging Face, and a program that uses the folder."""
    inputs = model.inputs
    if not is_built_as(model, LanguageModel):
        rows, columns, channels = inputs.image_shape
        sizes = dict(rows=rows, columns=columns, channels=channels)
        return "image-classification", _IMAGES.format(path=path.name, **sizes)
    if tokenizer is None:
        return "text-generation", _TOKENS.format(path=path.name)
    # A word that the run wrote, since a tokenizer of characters may not know others.
    written = (folder.load_sample() or "").split()
    readable = [word for word in written if word.isprintable() and "\ufffd" not in word]
    prompt = next(iter(readable), None) or tokenizer.decode([0]) or "The"
    options = dict(path=path.name, prompt=json.dumps(prompt), context=inputs.context)
    return "text-generation", _TEXTS.format(**options)


def _figures(folder: RunFolder, config: Config, step: int, weights: Weights) -> dict[str, Any]:
    """The held-out losses of these weights that the run logged after a step."""
    lines = [x for x in read_metrics(folder.metrics) if x["step"] == step]
    if folder.summary.exists() and step == config.training.steps:
        lines.append(folder.load_summary())
    suffix = "_of_average" if weights == "average" else ""
    return {
        name.removesuffix(suffix): value
        for line in lines
        for name, value in line.items()
        if name.startswith(("validation_", "test_"))
        and name.endswith("_of_average") == bool(suffix)
        and value is not None
    }
