"""The file that pyright reads strictly is right about what happens, too."""

import pytest
from helpers import GOLDEN
from typed import public_face


@pytest.mark.heavy
def test_the_public_face_as_a_user_writes_it(tmp_path):
    public_face.main(GOLDEN / "gpt2", tmp_path / "saved")
