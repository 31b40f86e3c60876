import pytest
import yaml
from hypothesis import given, settings, strategies as st

from ide_transformer.training.reading import read_yaml, write_yaml


_PLAIN = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(10**30), 10**30),
    st.floats(allow_nan=False),
    st.text(st.characters(codec="utf-8", exclude_categories=["Cs", "Cc"])),
    st.from_regex(r"[-+.0-9:_eExX]{1,6}", fullmatch=True),
    st.sampled_from(["yes", "no", "~", "null", "True", "1e3", "0o7", "2024-01-01", "<<", "="]),
)
_TREES = st.dictionaries(
    st.text(st.characters(codec="ascii", exclude_categories=["Cc"])),
    st.recursive(_PLAIN, lambda x: st.lists(x, max_size=3), max_leaves=3),
    max_size=3,
)


@settings(max_examples=50, deadline=None, derandomize=True, database=None)
@given(_TREES)
def test_what_is_written_is_read_back(tree):
    text = write_yaml(tree)
    assert read_yaml(text, "here") == tree
    # Also by a reader of YAML 1.1, such as that of releases before.
    assert yaml.safe_load(text) == tree


@pytest.mark.parametrize(
    ("text", "value"),
    [
        *((x, None) for x in ("", "~", "null", "# nothing")),
        *(("true", True), ("False", False), ("yes", "yes"), ("on", "on")),
        *(("8", 8), ("-8", -8), ("1_000", 1000), ("010", "010"), ("0x10", "0x10")),
        *(("1e-3", 1e-3), ("1.0e-3", 1e-3), ("1E5", 1e5), (".5", 0.5), ("5.", 5.0)),
        *((".inf", float("inf")), ("-.Inf", -float("inf")), ("1:30", "1:30")),
        *(("'8'", "8"), ('"true"', "true"), ("2024-01-01", "2024-01-01"), ("'~'", "~")),
        *(("[1, [a]]", [1, ["a"]]), ("{a: {b: }}", {"a": {"b": None}})),
        ("a: |\n  8\nb: >\n  1\n", {"a": "8\n", "b": "1\n"}),
    ],
)
def test_plain_words_and_numbers(text, value):
    read = read_yaml(text, "here")
    assert read == value and type(read) is type(value)
