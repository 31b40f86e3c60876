"""Runs objects in separate processes, and times their steps."""

import importlib
import multiprocessing
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import jax

from ide_transformer.memory import keep_freed_memory


def caller(instance: Any) -> Callable[..., Any]:
    """A function that calls a method of an object by name."""
    return lambda method, *arguments: getattr(instance, method)(*arguments)


class PairedProcess(ProcessPoolExecutor):
    """Makes an object in another process and calls its methods there, one at a time. The
    process ends with the `with` block. The class is named `module:Class`, of a module of this
    folder, which is imported there alone."""

    def __init__(self, name: str, *arguments: Any):
        # A fork would copy the threads of JAX in whatever state they are in.
        super().__init__(1, multiprocessing.get_context("spawn"))
        self._first = self.submit(_make, name, arguments)

    def call(self, method: str, *arguments: Any) -> Any:
        """The result of the method. Raises its errors here."""
        self._first.result()
        return self.submit(_call, method, arguments).result()


_instances: list[Any] = []


def _make(name: str, arguments: tuple) -> None:
    keep_freed_memory()  # as the process that compares
    module, _, kind = name.partition(":")
    loaded_module = importlib.import_module(f".{module}", __package__)
    _instances.append(getattr(loaded_module, kind)(*arguments))


def _call(method: str, arguments: tuple) -> Any:
    return caller(_instances[0])(method, *arguments)


def timed_steps(
    step: Callable[[], Any], steps: int, wait: Callable[[Any], Any] = jax.block_until_ready
) -> float:
    """Seconds for each of `steps` steps, after one that warms up. `wait` waits for what a step
    returns."""
    wait(step())
    began = time.perf_counter()
    for _ in range(steps - 1):
        step()
    wait(step())
    return (time.perf_counter() - began) / steps
