"""The optimiser steps that the budget of a comparison gives to each scheme."""

import json
from pathlib import Path
from typing import Any

from ...errors import InputError
from ...reporting import write_json
from ...tasks import AbstractTask
from ...training import Config, validated
from ...training.folder import changed_values
from .budget import Budget


class Steps:
    """The steps of each scheme. Those that seconds allow are measured once and kept in a file,
    since another measurement gives others, and an interrupted run could not go on with them.

    **Raises:** `InputError` where those in the file were measured for another budget.
    """

    def __init__(self, file: Path, budget: Budget):
        self._file, self._budget = file, budget
        # By scheme the number, and the configuration for which it was measured.
        self._measured: dict[str, dict[str, Any]] = {}
        if budget.measured and file.exists():
            self._measured = self._read()

    def of(self, scheme: str, config: Config, task: AbstractTask) -> int:
        """Steps of a scheme; see `Budget.steps`."""
        if not self._budget.measured:
            return self._budget.steps(config, task)
        known = self._measured.get(scheme)
        where = f"{self._file}: {scheme}"
        if known is None or changed_values(
            validated(Config, known["configuration"], where), config
        ):
            steps = self._budget.steps(config, task)
            known = {"steps": steps, "configuration": config.model_dump(mode="json")}
            self._measured[scheme] = known
        return known["steps"]

    def write(self) -> None:
        """Keeps what was measured."""
        if self._budget.measured:
            budget = self._budget.model_dump(mode="json")
            write_json(self._file, {"budget": budget, "schemes": self._measured})

    def _read(self) -> dict[str, dict[str, Any]]:
        try:
            kept = json.loads(self._file.read_text(encoding="utf-8"))
            then, measured = (
                kept["budget"],
                {
                    scheme: {"steps": int(x["steps"]), "configuration": x["configuration"]}
                    for scheme, x in dict(kept["schemes"]).items()
                },
            )
        except (ValueError, TypeError, KeyError):
            raise InputError(
                f"{self._file} is damaged, so that the steps of the runs are not known. "
                "Restore it, give the comparison another name, or remove the folder."
            ) from None
        if (then := validated(Budget, then, str(self._file))) != self._budget:
            raise InputError(
                f"budget: the runs in {self._file.parent} have {then}, and not "
                f"{self._budget}. Restore that budget, give the comparison another name, or "
                "remove the folder."
            )
        return measured
