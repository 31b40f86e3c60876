"""The library `transformers`, which heavy tests compare with."""

import pytest


@pytest.fixture
def make():
    """tests/golden/make.py, which runs the library. On one thread: more cost more than such
    small models."""
    pytest.importorskip("transformers").utils.logging.disable_progress_bar()
    from tests.golden import make

    make.torch.set_num_threads(1)
    return make
