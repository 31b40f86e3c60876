"""The errors with which a script exits."""

import sys

import jax.numpy as jnp
import pytest

from ide_transformer.commands import run_script


def test_sizes_that_do_not_fit_into_memory_are_said_in_a_line(capsys, monkeypatch):
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "")
    monkeypatch.setattr(sys, "path", [*sys.path])
    with pytest.raises(SystemExit) as ended:
        run_script(lambda: jnp.zeros(1 << 50).block_until_ready())
    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: RESOURCE_EXHAUSTED: Out of memory allocating")
