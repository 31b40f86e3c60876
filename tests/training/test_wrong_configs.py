"""Wrong configurations: one message that names the key, exit status 2, and nothing written."""

import re
import resource
import time

import equinox as eqx
import pytest
import yaml
from helpers import filled
from hypothesis import HealthCheck, given, settings, strategies as st
from running import run_here
from training import stub, wrong_configs

from ide_transformer.training import loading, run, sizes
from ide_transformer.training.build import build_model


PLACES = wrong_configs.places()


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A folder with a right configuration, tiny, and a text."""
    folder = tmp_path_factory.mktemp("base")
    (folder / "text.txt").write_text("the quick brown fox jumps over the lazy dog. " * 40)
    (folder / "base.yaml").write_text(yaml.safe_dump(stub.tree()))
    return folder


@pytest.fixture
def refused(base, capsys, monkeypatch):
    """`train.py` with this text or override; it has to say this. NumPy draws the weights."""

    def would_start(*_):
        print("it would start")
        raise SystemExit(0)

    def drawn(*given):
        return filled(eqx.filter_eval_shape(build_model, *given), 0.1, seed=0)

    monkeypatch.setattr(loading, "build_model", drawn)
    monkeypatch.setattr(run, "new_folder", would_start)
    monkeypatch.setattr(sizes, "memory", lambda: 2**34)

    def check(said, *overrides, text=None):
        path = base / "base.yaml"
        if text is not None:
            path = base / "wrong.yaml"
            path.write_text(text)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        began = time.process_time()
        given = (*overrides, "--runs", base / "runs")
        output = run_here(capsys, "train.py", path, *given, expected=2)
        assert time.process_time() - began < 10
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 2**20
        message = output.split("error: ", 1)[1]
        for override in overrides:
            message = message.replace(f"override {override!r}", "")
        parts = (re.escape(" ".join(part.split())) for part in said.split("…"))
        assert re.search(".*".join(parts), message), output
        assert "Traceback" not in output and len(output) < 3_000
        assert not (base / "runs").exists()

    return check


def test_a_wrong_value_is_refused(refused, thorough):
    @settings(
        max_examples=1_000 if thorough else 100,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(st.data())
    def check(data):
        place = data.draw(st.sampled_from(PLACES))
        value = data.draw(wrong_configs.wrong_values(place))
        refused(place.key, place.override(value))

    with pytest.raises(AssertionError, match="it would start"):
        refused("")  # the right one
    check()


def test_what_is_wrong_is_said(refused, base):
    for text, said in wrong_configs.WRONG_TEXTS.items():
        refused(said, text=text)
    rows = re.sub(r"\n +", " ", wrong_configs.REFUSED)
    for row in filter(None, rows.splitlines()):
        given, said = row.replace("TEXT", str(base / "text.txt")).split(" | ")
        refused(said, *given.strip().split("; "))


def test_what_explodes_is_refused_at_once(refused, base):
    # Sizes are those of a text at hand.
    data = f"data: {{name: text, path: {base / 'text.txt'}}}\n"
    for text, said in wrong_configs.EXPLODING.items():
        refused(said, text=data + text if "{" in text.split("[")[0] else text)
