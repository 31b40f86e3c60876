"""Saves a trained model with fewer layers as a checkpoint."""

from pathlib import Path
from typing import Literal

from ide_transformer.arguments import PositiveInt, checked
from ide_transformer.contrib.depth_problem import Problem, make_problem
from ide_transformer.contrib.meshes import coarsenings, native_target
from ide_transformer.contrib.replaced_layers import least_turned, replace_layers
from ide_transformer.contrib.shortening import COARSENINGS
from ide_transformer.errors import InputError
from ide_transformer.models import Model
from ide_transformer.pretrained import save_pretrained
from ide_transformer.training import LoadedModel, load_model


Method = Literal["coarsened", "dropped", "merged", "replaced"]


@checked
def save_shorter(
    path: str,
    folder: Path,
    *,
    layers: PositiveInt | None = None,
    method: Method = "coarsened",
    calibration: PositiveInt = 128,
    trust: bool = False,
    text: str | None = None,
) -> str:
    """Saves the run or checkpoint in `path` with fewer layers, in the layout of the checkpoint,
    or of GPT-2, Llama or ViT. Returns a line about it.

    **Arguments:**

    - `folder`: a new folder, or a new file for glassllm.
    - `layers`: how many layers are saved. Default: one less than the model has.
    - `method`: "coarsened" leaves layers out, lengthens or merges them, and fits a step size
      for each feature, see `coarsen`. "dropped" leaves layers out, "merged" merges them.
      "replaced" leaves out neighbours, see `replace_layers`.
    - `calibration`: the samples to choose and fit by.
    - `text`: for a language model, where they are from.
    """
    if folder.is_file() or (folder.is_dir() and any(folder.iterdir())):
        raise InputError(f"{folder} is there already; give a new name.")
    loaded = load_model(path, trust=trust)
    model = loaded.model.ordinary
    wanted = layers or model.layers - 1
    if not 0 < wanted < model.layers:
        raise InputError(f"{path} has {model.layers} layers; save fewer, not {wanted}.")
    problem = make_problem(loaded, calibration, held_out=1, text=text)
    shorter = _shorter(model, problem, wanted, method)
    error = native_target(model, problem.calibration, problem.read).error(shorter)
    _save(shorter, loaded, folder)
    return (
        f"{folder}: {wanted} of {model.layers} layers, {method}, relative error {error:.3f} on "
        f"{calibration} samples. Load it with ide_transformer.load_pretrained"
        f"({str(folder)!r}) or the original library."
    )


def _shorter(model: Model, problem: Problem, layers: int, method: Method) -> Model:
    if method == "replaced":
        gone = least_turned(model, model.layers - layers, problem.calibration)
        return replace_layers(model, gone, problem.calibration)
    meshes = coarsenings(model, problem.calibration, read=problem.read, **COARSENINGS[method])
    return next(mesh.model for mesh in meshes if mesh.model.layers == layers)


def _save(model: Model, loaded: LoadedModel, folder: Path) -> None:
    if loaded.run is None or loaded.config is None:
        save_pretrained(model, folder, like=loaded.path)
        return
    source = loaded.config.model.pretrained
    save_pretrained(model, folder, like=source)
    tokenizer = loaded.run.known_tokenizer
    library = None if tokenizer is None else tokenizer.for_others()
    if source is None and library is not None:
        library.save(str(folder / "tokenizer.json"))
