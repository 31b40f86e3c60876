import re
import sys
from urllib.parse import urlsplit

import pytest
from helpers import ROOT

from documentation.execute import page_of
from documentation.links import check_links
from documentation.names import check_names, with_sentences
from documentation.pages import SOURCES, TABLES, tables
from ide_transformer import InputError


SCRIPT = """
# %% [markdown]
# # Title
#
#     u_t = A(u)

# %%
import matplotlib.pyplot as plt

print("hello")
plt.plot([1, 2])
plt.title("A line")
plt.show()
"""


def test_every_public_name_has_its_place_on_a_page():
    check_names(SOURCES / "reference" / "api")


def test_each_name_is_followed_by_the_first_sentence_of_its_documentation():
    for page in (SOURCES / "reference" / "api").glob("*.md"):
        text = page.read_text(encoding="utf-8")
        assert with_sentences(text) == text, "python scripts/docs.py --tables"


def test_the_tests_that_pages_name_exist():
    named = [
        pair
        for page in SOURCES.rglob("*.md")
        for pair in re.findall(r"\b(tests/[\w/]+\.py)::(\w+)", page.read_text(encoding="utf-8"))
    ]
    assert named
    for file, name in named:
        assert f"\ndef {name}(" in (ROOT / file).read_text(encoding="utf-8"), (file, name)


@pytest.mark.parametrize(
    "name", [pytest.param(x, marks=pytest.mark.heavy) if x == "schemes" else x for x in TABLES]
)
def test_a_table_on_a_page_is_that_of_the_code(name):
    assert tables()[name] == TABLES[name](), "renew it: python scripts/docs.py --tables"


PAGES = sorted([*ROOT.glob("*.md"), *SOURCES.rglob("*.md")])


def headings(page):
    """The anchors of the headings of a page or a tutorial, as a forge gives them."""
    lines = re.findall(r"^(?:# )?#+ (.*)$", page.read_text(encoding="utf-8"), flags=re.M)
    return {re.sub(r"[^\w\- ]", "", line.lower()).replace(" ", "-") for line in lines}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_somewhere_in_the_repository(page):
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        if not urlsplit(link).scheme:
            assert target.exists(), link
            # The site alone has anchors of names.
            if anchor and "ide_transformer." not in anchor:
                assert anchor in headings(target), link


def test_a_tutorial_becomes_a_page_with_what_it_prints_and_draws(tmp_path, monkeypatch):
    # It takes the place of the main module, which comes back after the test.
    monkeypatch.setitem(sys.modules, "__main__", sys.modules["__main__"])
    (tmp_path / "line.py").write_text(SCRIPT, encoding="utf-8")
    page = page_of(tmp_path / "line.py", tmp_path)
    assert page.startswith("# Title\n\n    u_t = A(u)\n\n```python\nimport matplotlib")
    assert page.endswith("```text\nhello\n```\n\n![A line](line-1.png)\n")


def test_links(tmp_path):
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "index.html").write_text('<p id="there">', encoding="utf-8")
    page = tmp_path / "index.html"
    page.write_text('<a href="b/#there"><a href="https://example.org/x">', encoding="utf-8")
    check_links(tmp_path)
    for link, problem in {
        '<a href="c/">': "broken link c/",
        '<a href="b/#nowhere">': "broken link b/#nowhere",
        '<script src="https://example.org/x.js">': "loads https://example.org/x.js",
    }.items():
        page.write_text(link, encoding="utf-8")
        with pytest.raises(InputError, match=problem):
            check_links(tmp_path)
