"""Names in figures are texts: matplotlib would read mathematics between two dollars."""

import io

import matplotlib
import numpy as np
import pytest

from benchmarks.shared.report import plot_bars
from ide_transformer import figures
from ide_transformer.figures import Curve


NAMES = ["$\\frac{a$", "$\\a$", "1 $ and \\$2", "_a", "$x_1$"]
LINE = [1.0, 2.0], [1.0, 2.0]


@pytest.mark.parametrize("name", NAMES)
def test_every_figure_shows_a_name_as_it_is(name, tmp_path):
    path, function = tmp_path / "a.png", {name: np.arange(4.0)}
    panels = {name: [Curve(name, *LINE)], "two": [Curve(name, *LINE), Curve("b", *LINE)]}
    file = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none"}):
        figures.draw_panels(panels, x=name, y=name, log="xy").savefig(file, format="svg")
    # Two axes of x, one of y, a title, the legend.
    assert file.getvalue().count(f">{name}</text>") == 5
    figures.plot_curves(path, {name: LINE, "b": LINE}, x=name, y=name)
    figures.plot_intervals(path, {name: (1.0, 0.1), "b": (2.0, 0.3)}, x=name)
    figures.plot_fields(path, np.arange(4.0)[:, None], [{**function, "truth": np.ones(4)}])
    figures.plot_fields(path, np.array([[0, 0], [0, 1], [1, 0], [1, 1.0]]), [function])
    plot_bars(path, [name, "b"], {"seconds": ([1.0, 2.0], [0.1, 0.2])})
