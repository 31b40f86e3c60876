"""Pages: one file that needs no other, in the colours of its reader's system."""

import re

import pytest
from matplotlib.figure import Figure

from ide_transformer.figures import COLORS, Curve, Part, Picture, draw_panels, write_page
from ide_transformer.figures.page import inline_svg, palette


def picture(number=2):
    curves = [Curve(f"run <{n}>", [1, 2, 3], [n, 2 * n, n]) for n in range(number)]
    return Picture(draw_panels({"a & b": curves}, x="step", y="loss"), "Losses < 3.")


def page(path, *parts):
    write_page(path, "Two & more", "About <them>.", parts)
    return path.read_text(encoding="utf-8")


def test_a_page_needs_nothing_but_itself(tmp_path):
    rows = [{"run": "<b>", "loss": 1.5}, {"run": "other"}]
    text = page(tmp_path / "page.html", Part("One", "", [picture()], rows, {"t": "x < y\n"}))
    loads = re.findall(r'(?:src|href|url)\s*[=(]\s*["\']?([^"\')\s>]+)', text)
    assert {x for x in loads if not x.startswith("#")} == set()
    namespaces = {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}
    assert {*re.findall(r"https?://[^\"'\s<]+", text)} <= namespaces
    assert "<script" not in text and "@import" not in text
    assert "About &lt;them&gt;." in text and "x &lt; y" in text and "Losses &lt; 3." in text
    assert "<td>&lt;b&gt;</td>" in text and '<td class="number">1.5</td>' in text
    assert text.count("<svg") == text.count("</svg>") == 1


def test_figures_are_the_same_text_again_and_have_no_colours_of_their_own():
    drawings = [inline_svg(picture(8).figure, "losses") for _ in range(2)]
    assert drawings[0] == drawings[1]
    assert not {x for x in re.findall("#[0-9a-f]{6}", drawings[0])} - {"#b0b0b0"}  # the grid
    for number in range(8):
        variable = "currentColor" if COLORS[number] == "#000000" else f"var(--c{number})"
        assert f"stroke: {variable}" in drawings[0]
    assert "run &lt;3&gt;" in drawings[0] and "a &amp; b" in drawings[0]


def _luminance(color):
    channels = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [x / 12.92 if x <= 0.04045 else ((x + 0.055) / 1.055) ** 2.4 for x in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize(("dark", "ground"), [(False, "#ffffff"), (True, "#16181c")])
def test_curves_and_labels_stand_out(dark, ground):
    """The contrast that WCAG 2.1 defines. On white the palette of Okabe and Ito has 2.1 for its
    palest line and 4.1 for its palest label; on the dark ground all have more."""
    found = dict(re.findall(r"--(\w\d): (#\w{6})", palette(dark=dark)))
    assert len(found) == 16
    for name, color in found.items():
        light, deep = sorted((_luminance(color), _luminance(ground)), reverse=True)
        contrast = (light + 0.05) / (deep + 0.05)
        assert contrast > (4.1 if name.startswith("t") else 2.1), (name, color, contrast)


def test_a_page_that_fails_leaves_the_one_before(tmp_path):
    before = page(tmp_path / "page.html", Part("One"))

    class Broken(Figure):
        def savefig(self, *_, **__):
            raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        page(tmp_path / "page.html", Part("Two", "", [Picture(Broken(), "")]))
    assert (tmp_path / "page.html").read_text() == before
    assert len(list(tmp_path.iterdir())) == 1
