"""Converts a checkpoint of another library to a run, and a run to a checkpoint."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax

from ...arguments import checked
from ...models import LanguageModel, Model, is_built_as
from ...pretrained import find_pretrained, save_pretrained
from ...pretrained.files import read_json, write_options
from ...reporting import write_text
from ...tasks import PretrainedTokenizer, end_token
from ..configuration.files import config_of
from ..configuration.text import Tree, apply_overrides, write_yaml
from ..steps.build import build_model_of_size
from ..steps.phases import make_phases
from ..steps.step import Weights
from .checkpoints import Checkpoints, Which
from .loading import restore_model
from .metrics import read_metrics
from .run_folder import RunFolder, new_folder


_CARD = """\
---
# license: say under which one you publish this
library_name: transformers
pipeline_tag: {task}
tags: [ide_transformer]
---

# {path}

A model in the layout of `{layout}`, which `transformers` reads. It was trained with
ide_transformer on `{data}` for {step:,} of {steps:,} steps (validation loss: {loss}).
Code: {sources}.

`ide-transformer train {name}.yaml` trains it again, with this file:

```yaml
{config}```
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
    files = find_pretrained(path)
    # An absolute path, so that the run can be read from any folder.
    pretrained = str(files.resolve()) if Path(path).exists() else str(path)
    runs = Path(runs)
    tree = Tree({"name": name, "model": {"pretrained": pretrained}})
    origin = apply_overrides(tree, overrides)
    config = config_of(tree)
    key = jax.random.key(config.training.seed)
    model = build_model_of_size(config, {}, key)
    if is_built_as(model, LanguageModel) and "model.context" not in origin:
        # The model must be able to take the windows of its data.
        context = min(config.model.context, model.inputs.context)
        config = config.changed("model", context=context)
    state = make_phases(config, model).start(model, key)

    def save(tokenizer: Path) -> None:
        if is_built_as(model, LanguageModel):
            PretrainedTokenizer.from_pretrained(files).save(tokenizer)

    folder = new_folder(config, runs, save)
    with folder.sole_use(), Checkpoints(folder, keep=1) as checkpoints:
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
    folder = RunFolder(run, trust=trust)
    config = folder.load_config()
    model, step = restore_model(folder, config, checkpoint, weights)
    source = config.model.pretrained
    if source is not None or adapter:
        save_pretrained(model, path, like=source, adapter=adapter)
        return
    tokenizer = folder.load_tokenizer()
    library = None if tokenizer is None else tokenizer.for_others()
    save_pretrained(model, path)
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
            write_options(path / "generation_config.json", generation)
        write_options(path / "tokenizer_config.json", options)
        # The library's `save` hides errors of the system.
        write_text(path / "tokenizer.json", library.to_str(pretty=True))
    write_text(path / "README.md", _card(folder, model, step, weights, path))


def _card(folder: RunFolder, model: Model, step: int, weights: Weights, path: Path) -> str:
    """The model card in Markdown. The user fills in the licence."""
    config = folder.load_config()
    tree: dict[str, Any] = config.changes()
    tree |= {"name": config.name}
    # The folders of this machine are private.
    if config.data.path is not None:
        tree["data"]["path"] = config.data.path.name
    if config.model.run is not None:
        tree["model"]["run"] = Path(config.model.run).name
    key = "validation_loss" if weights == "trained" else "validation_loss_of_average"
    losses = [x[key] for x in read_metrics(folder.metrics) if x["step"] == step and key in x]
    of_text = is_built_as(model, LanguageModel)
    return _CARD.format(
        task="text-generation" if of_text else "image-classification",
        path=path.name,
        layout=read_json(path / "config.json")["model_type"],
        data=config.data.name,
        step=step,
        steps=config.training.steps,
        loss=losses[0] if losses else "not measured",
        sources="; ".join(folder.sources),
        name=config.name,
        config=write_yaml(tree),
    )
