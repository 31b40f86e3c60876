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
from training import stub
from training.wrong_configs import (
    EXPLODING,
    REFUSED,
    WRONG_TEXTS,
    misspelt,
    places,
    wrong_values,
)

from ide_transformer import InputError
from ide_transformer.training import load_config, loading, run, sizes
from ide_transformer.training.build import build_model


PLACES = places()
STAGED = (
    "data.name=digits; model={kind: image_stage, width: 4, heads: 2, depth: 2, "
    "class_token: true, stages: [{}, {}]}"
)


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
        output = run_here(
            capsys, "train.py", path, *overrides, "--runs", base / "runs", expected=2
        )
        seconds = time.process_time() - began
        kibibytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        message = output.split("error: ", 1)[1]
        for override in overrides:
            if f"override {override!r}" not in said:
                message = message.replace(f"override {override!r}", "")
        parts = (re.escape(" ".join(part.split())) for part in said.split("…"))
        assert re.search(".*".join(parts), message), output
        assert "Traceback" not in output and len(output) < 3_000
        assert seconds < 10 and kibibytes < 2**20
        assert not (base / "runs").exists()

    return check


def test_the_right_one_would_start(refused):
    with pytest.raises(AssertionError, match="it would start"):
        refused("")


def wrong_value(refused, examples):
    @settings(
        max_examples=examples,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(st.data())
    def check(data):
        place = data.draw(st.sampled_from(PLACES))
        value = data.draw(wrong_values(place))
        refused(place.key, place.override(value))

    check()


def test_a_wrong_value_is_refused(refused):
    wrong_value(refused, 100)


@pytest.mark.heavy
@pytest.mark.thorough
def test_many_wrong_values_are_refused(refused):
    wrong_value(refused, 1_000)


def test_a_misspelt_key_is_refused(base):
    for key in misspelt():
        with pytest.raises(InputError, match=f"unknown key {re.escape(key)}"):
            load_config(base / "base.yaml", [f"{key}=1"])


def test_wrong_texts_are_refused(refused):
    for text, said in WRONG_TEXTS.items():
        refused(said, text=text)


def test_wrong_overrides_are_refused(refused, base):
    rows = re.sub(r"\n +", " ", REFUSED).replace("STAGED", STAGED)
    for row in filter(None, rows.splitlines()):
        given, said = row.replace("TEXT,", f"{base / 'text.txt'},").split(" | ")
        given = given.replace("TEXT}", f"{base / 'text.txt'}}}")
        refused(said, *given.strip().split("; "))
    refused("sections inside each other", "model=" + "[" * 10_000)


@pytest.mark.parametrize("content", [b"\xff\xfe", "name: a".encode("utf-16"), b"name: \xe9"])
def test_a_text_that_is_not_utf8_is_refused(base, content):
    (base / "bytes.yaml").write_bytes(content)
    with pytest.raises(InputError, match="must be UTF-8"):
        load_config(base / "bytes.yaml")


def test_what_explodes_is_refused_at_once(refused, base):
    for text, said in EXPLODING.items():
        refused(said, text=_on_own_text(base, text))


def _on_own_text(base, text):
    """Sizes are those of a text at hand."""
    data = f"data: {{name: text, path: {base / 'text.txt'}}}\n"
    return data + text if "{" in text.split("[")[0] else text
