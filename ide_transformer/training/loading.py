"""The model of a run or of a checkpoint, for scripts."""

from pathlib import Path
from typing import NamedTuple

from ..errors import InputError
from ..models import AbstractModel
from ..pretrained import find_pretrained, load_pretrained
from ..tasks import AbstractTokenizer, PretrainedTokenizer, load_tokenizer
from .build_discretization import with_solver
from .config import NATIVE, SolverConfig
from .folder import RunFolder
from .reading import read_overrides, validated
from .run import load_run


class LoadedModel(NamedTuple):
    """A model and its origin.

    - `run`: the folder of its run, or `None` for a checkpoint.
    - `path`: the run or checkpoint.
    """

    model: AbstractModel
    run: RunFolder | None
    path: Path

    @property
    def tokenizer(self) -> AbstractTokenizer:
        """The tokenizer of the model.

        **Raises:** `InputError` where it has none.
        """
        if self.run is None:
            return PretrainedTokenizer.from_pretrained(self.path)
        if not self.run.tokenizer.exists():
            raise InputError(f"{self.path} has no tokenizer: it is no run on text.")
        return load_tokenizer(self.run.tokenizer)


def load_model(path: str, overrides: list[str]) -> LoadedModel:
    """The model of a run or of a checkpoint, solved by its own scheme or by another.

    **Arguments:**

    - `path`: the folder of a run, or what `load_pretrained` takes.
    - `overrides`: `solver.key=value` of the scheme, as in the configuration of a run.

    **Raises:** `InputError` where there is neither, or the scheme is not known.
    """
    folder = Path(path)
    if folder.is_dir() and not any(
        (folder / f"config.{x}").is_file() for x in ("yaml", "json")
    ):
        raise InputError(
            f"{path} is neither the folder of a run, which has a config.yaml, nor that of a "
            "checkpoint, which has a config.json."
        )
    if (folder / "config.yaml").is_file():
        model, run = load_run(folder)
        loaded = LoadedModel(model, run, folder)
    else:
        found = find_pretrained(path)
        loaded = LoadedModel(load_pretrained(found), None, found)
    return loaded._replace(model=with_solver(loaded.model, read_solver(overrides)))


def read_solver(overrides: list[str]) -> SolverConfig:
    """The scheme that overrides `solver.key=value` describe; without any, the model's own."""
    tree, origin = read_overrides(overrides)
    foreign = [key for key in origin if not key.startswith("solver.")]
    if foreign:
        raise InputError(
            f"{', '.join(foreign)}: the weights are given; only solver.… can be chosen here, "
            "for example solver.kind=strang."
        )
    section = tree.get("solver", {"kind": NATIVE})
    here = {key.removeprefix("solver."): where for key, where in origin.items()}
    return validated(SolverConfig, section, "the command line", here)
