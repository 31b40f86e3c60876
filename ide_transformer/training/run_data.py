"""The data of a run, after its training."""

from ..errors import InputError
from ..tasks import AbstractTask
from .build import build_task
from .config import Config
from .folder import RunFolder, changed_data, same_tokenizer


def run_task(
    run: RunFolder, config: Config | None = None, *, named: bool = False, trust: bool = False
) -> AbstractTask:
    """The data of a run in its own tokens.

    **Arguments:**

    - `config`: that of the run, or one with another context.
    - `trust`: see `load_run`; a `config` is that of a model that was loaded.
    - `named`: whether these are other data, which the user has named.

    **Raises:** `InputError` where the data are not those with which the run began, as far as it
    recorded them, or have a token that its tokenizer lacks.
    """
    own = run.load_config(trust if config is None else config)
    config = own if config is None else config
    tokenizer = run.load_tokenizer() if run.tokenizer.exists() else None
    try:
        task = build_task(config if named else own, tokenizer)
    except InputError as error:
        if named:
            raise
        raise InputError(f"{run.path}: its data are not as they were: {error}") from None
    if named:
        if not same_tokenizer(run, task):
            raise InputError(
                f"data.path={config.data.path}: the tokens of these data are not those of "
                f"{run.path}; make them with --tokenizer {run.tokenizer}."
            )
        return task
    if changed := changed_data(run, task, task.fingerprint()):
        path = own.data.path
        name = f"data.name={own.data.name}" if path is None else f"data.path={path}"
        raise InputError(
            f"{run.path} began otherwise; {' and '.join(changed)} changed since. Restore what "
            f"it began with. Where evaluate.py or load_model is given {name}, it takes them as "
            "they are now, in the tokens of the run."
        )
    return task if config.model == own.model else build_task(config, tokenizer)
