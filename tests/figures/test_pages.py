"""Pages: one file that needs no other."""

import base64
import re

from ide_transformer.figures import Curve, Part, draw_panels, write_page


def test_a_page_needs_nothing_but_itself(tmp_path):
    figure = draw_panels({"a & b": [Curve("run", [1, 2], [1, 2])]}, x="step", y="loss")
    rows = [{"run": "<b>", "loss": 1.5}, {"run": "other"}]
    figures, texts = {"Losses < 3.": figure}, {"t": "x < y\n"}
    path = tmp_path / "page.html"
    write_page(path, "Two & more", "About <them>.", [Part("One", "", figures, rows, texts)])
    text = path.read_text(encoding="utf-8")
    ((kind, drawing),) = re.findall(r'src="data:(.*?);base64,(.*?)"', text)
    assert kind == "image/svg+xml" and b"<svg" in base64.b64decode(drawing)
    assert len(re.findall(r"(?:src|href|url)\s*[=(]", text.replace(drawing, ""))) == 1
    assert "<script" not in text and "@import" not in text and "http" not in text
    assert "About &lt;them&gt;." in text and "x &lt; y" in text and "Losses &lt; 3." in text
    assert "<td>&lt;b&gt;</td>" in text and "<td>1.5</td>" in text
