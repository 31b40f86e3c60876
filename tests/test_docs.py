import contextlib
import re
import sys
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from helpers import ROOT

from documentation import mathematics
from documentation.execute import page_of, shortened
from documentation.links import check_links
from documentation.names import check_built, check_names, public_names, with_sentences
from documentation.pages import SOURCES, TABLES, tables
from ide_transformer import InputError, __version__


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


@pytest.fixture(autouse=True)
def _main_module(monkeypatch):
    """A tutorial takes the place of the main module, which comes back after the test."""
    monkeypatch.setitem(sys.modules, "__main__", sys.modules["__main__"])


def test_every_public_name_has_its_place_on_a_page():
    check_names(SOURCES / "reference" / "api")


def test_each_name_is_followed_by_the_first_sentence_of_its_documentation():
    for page in (SOURCES / "reference" / "api").glob("*.md"):
        text = page.read_text(encoding="utf-8")
        assert with_sentences(text) == text, "python scripts/docs.py --tables"
    own = with_sentences("- `ide_transformer.training.Config`: old\n- `ide_transformer.gelu`")
    first, second = own.split("\n")
    assert first == "- `ide_transformer.training.Config`: A run."
    assert second.startswith("- `ide_transformer.gelu`: `x Φ(x)`, Φ the normal")


def test_a_name_without_a_place_and_an_unknown_one_are_reported(tmp_path):
    for page in (SOURCES / "reference" / "api").glob("*.md"):
        lines = page.read_text(encoding="utf-8").splitlines()
        text = "\n".join(x for x in lines if "- `ide_transformer.Strang`" not in x)
        (tmp_path / page.name).write_text(text, encoding="utf-8")
    (tmp_path / "more.md").write_text("- `ide_transformer.Euler`\n", encoding="utf-8")
    with pytest.raises(
        ValueError, match=r"(?s)transformer\.Strang: 0 places.*Euler: .*not public"
    ):
        check_names(tmp_path)


def test_built_pages_show_every_name_and_no_file_in_its_place(tmp_path):
    anchors = [f'<h3 id="{names[0]}">' for names in public_names().values()]
    page = tmp_path / "index.html"
    page.write_text("".join(anchors), encoding="utf-8")
    check_built(tmp_path)
    file = '<div class="doc doc-object doc-module">\n<h3 id="ide_transformer.solve">'
    page.write_text("".join(anchors[1:]) + file, encoding="utf-8")
    with pytest.raises(InputError, match=f"{anchors[0][8:-2]}, ide_transformer.solve"):
        check_built(tmp_path)


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


def test_the_site_and_the_page_on_citing_say_the_version():
    for page in (ROOT / "mkdocs.yml", SOURCES / "cite.md"):
        assert re.search(rf"version.*{__version__}", page.read_text(encoding="utf-8")), page


def test_formulas_are_typeset_and_code_is_not(monkeypatch):
    monkeypatch.setattr(mathematics, "drawing", lambda x, inline=False: f"<{x.strip()}>")
    code = "```sh\necho $a $b\n```\n\n`$c$` at $5 or \\$6 and $7\n"
    page = f"$x$, ($y_1$)\n\n```math\nu_t\n= A\n```\n\n{code}"
    block = '<div class="formula"><u_t\n= A></div>'
    assert mathematics.typeset(page) == f"<x>, (<y_1>)\n\n{block}\n\n{code}"


def test_a_tutorial_becomes_a_page_with_what_it_prints_and_draws(tmp_path):
    (tmp_path / "line.py").write_text(SCRIPT, encoding="utf-8")
    page = page_of(tmp_path / "line.py", tmp_path)
    assert page.startswith("# Title\n\n    u_t = A(u)\n\n```python\nimport matplotlib")
    assert page.endswith("```text\nhello\n```\n\n![A line](line-1.png)\n")
    assert (tmp_path / "line-1.png").exists()


def test_an_error_in_a_tutorial_names_its_line(tmp_path):
    script = tmp_path / "broken.py"
    script.write_text("# %% [markdown]\n# # Title\n# %%\n\nx = 1\n1 / 0\n", encoding="utf-8")
    with pytest.raises(ZeroDivisionError) as caught:
        page_of(script, tmp_path)
    where = caught.traceback[-1]
    assert (Path(where.path), where.lineno + 1) == (script, 6)
    script.write_text("x = 1\n# %%\n", encoding="utf-8")
    with pytest.raises(ValueError, match="begins with"):
        page_of(script, tmp_path)


def test_a_tenth_of_the_training_is_asked_for():
    text = "training:\n  steps: {}\n  warmup: {}\nbudget: {{amount: {}}}\nsamples: 40"
    assert shortened(text.format(300, 5, 600)) == text.format(30, 1, 60)


def test_links(tmp_path):
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "index.html").write_text('<p id="there">', encoding="utf-8")
    for link, problem in {
        "": None,
        '<a href="b/">': None,
        '<a href="b/#there">': None,
        '<a href="https://example.org/x">': None,
        '<a href="c/">': "broken link c/",
        '<a href="b/#nowhere">': "broken link b/#nowhere",
        '<img src="missing.png">': "broken link missing.png",
        '<script src="https://example.org/x.js">': "loads https://example.org/x.js",
    }.items():
        (tmp_path / "index.html").write_text(link, encoding="utf-8")
        match = problem and re.escape(problem)
        with pytest.raises(InputError, match=match) if problem else contextlib.nullcontext():
            check_links(tmp_path)
