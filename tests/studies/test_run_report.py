"""The report of runs, on one with smooth weights and on an adaptive one."""

import html
import itertools
import json
import re
import shutil
import subprocess

import diffrax
import jax
import numpy as np
import pytest
from running import run_here
from training.small_run import TEXT

from ide_transformer import InputError, training
from ide_transformer.studies.runs.measured import measure, read_runs, step_attempts


BROWSER = shutil.which("chromium") or shutil.which("chromium-browser")


def test_bad_input_is_said_and_nothing_is_overwritten(tmp_path, capsys):
    report = tmp_path / "report.html"
    report.write_text("before")
    logged, silent = tmp_path / "logged", tmp_path / "silent"
    for run in (logged, silent):
        run.mkdir()
        (run / "config.yaml").write_text("version: 1\n")
    (logged / "metrics.jsonl").write_text('{"step": 1, "loss": 1.0}\n')
    there = tmp_path / "nowhere"
    for arguments, message in [
        ([there], f"{there}"),
        ([tmp_path], "is not the folder of a run: it has no config.yaml"),
        ([logged, silent], "has logged no step of training"),
        ([logged, "--output", tmp_path], "it is a folder"),
        ([logged, "--output", there / "a.html"], "there is no folder"),
    ]:
        output = run_here(capsys, "report.py", "--output", report, *arguments, expected=2)
        assert "error: " in output and message in output
    assert report.read_text() == "before"
    assert {path.name for path in tmp_path.iterdir()} == {"report.html", "logged", "silent"}


def test_a_text_that_is_damaged_is_shown_as_such(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run/config.yaml").write_text("version: 1\n")
    (tmp_path / "run/metrics.jsonl").write_text('{"step": 1, "loss": 1.0}\n')
    (tmp_path / "run/sample.txt").write_bytes(b"To be\xff\n")
    assert read_runs([tmp_path / "run"])[0].sample == "To be\ufffd"
    (tmp_path / "run/summary.json").write_text("[1]")
    with pytest.raises(InputError, match=r"summary\.json is damaged"):
        read_runs([tmp_path / "run"])


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A run with smooth weights, one like it whose data are lost, and an adaptive one."""
    there = tmp_path_factory.mktemp("report")
    (there / "text.txt").write_text(TEXT)

    def train(name, steps, **sections):
        tree = {
            "name": name,
            "data": {"name": "text", "path": str(there / "text.txt")},
            "model": {"width": 8, "heads": 2, "depth": 2, "context": 8, "std": 0.5},
            "optimizer": {"warmup": 1},
            "training": {"steps": steps, "batch_size": 4, "log_every": 1, "sample": 10},
        }
        tree["training"] |= {"evaluate_every": steps // 2, "evaluate_samples": 4}
        config = training.Config.model_validate(tree | sections)
        return training.train(config, runs=there).path

    chebyshev = {"kind": "chebyshev", "options": {"terms": 2}}
    nesterov = {"kind": "nesterov", "options": {"normalization": "layer_norm"}}
    smooth = train("smooth", 8, control=chebyshev, solver=nesterov)
    lost = shutil.copytree(smooth, there / "lost")
    (lost / "summary.json").unlink()
    config = (lost / "config.yaml").read_text()
    (lost / "config.yaml").write_text(config.replace("text.txt", "lost.txt"))
    adaptive = {"kind": "tsit5", "rtol": 1e-5, "atol": 1e-5}
    return [smooth, lost, train("adaptive", 2, solver=adaptive)]


@pytest.mark.heavy
def test_attempted_steps_are_those_of_the_solve(runs):
    model, folder = training.load_run(runs[2])
    inputs = next(training.build_task(folder.load_config()).held_out(4)).inputs
    tried, solution = step_attempts(model, inputs), model.solve(inputs)
    assert tried is not None
    assert tried.accepted.sum() == solution.stats["accepted"]
    assert (~tried.accepted).sum() == solution.stats["rejected"] > 0
    depths, sizes = tried.depths[tried.accepted], tried.sizes[tried.accepted]
    ends = depths + sizes
    assert np.allclose([*depths, 2.0], [0.0, *ends], atol=1e-6)
    # A step that was refused is tried again from the same depth, smaller.
    refused = np.flatnonzero(~tried.accepted)
    assert np.allclose(tried.depths[refused + 1], tried.depths[refused])
    assert (tried.sizes[refused + 1] < tried.sizes[refused]).all()
    assert step_attempts(model.with_solver(diffrax.Euler()), inputs) is None


@pytest.mark.heavy
def test_norms_are_those_of_the_states_and_weights(runs):
    run = read_runs(runs[:1])[0]
    model, _ = training.load_run(runs[0])
    inputs = next(training.build_task(run.config).held_out(16)).inputs
    knots = np.asarray(model.equation.knots)
    us = np.asarray(model.solve(inputs, saveat=diffrax.SaveAt(ts=knots)).us, float)
    found = measure(run)
    assert np.allclose(found.profile.state, [np.sqrt((u**2).mean()) for u in us])
    steps = [np.sqrt(((b - a) ** 2).mean()) for a, b in itertools.pairwise(us)]
    assert np.allclose(found.profile.increment, steps, rtol=1e-4)

    def rms(leaves):
        return np.sqrt(sum((x**2).sum() for x in leaves) / sum(x.size for x in leaves))

    terms = [np.asarray(x, float) for x in jax.tree.leaves(model.control.coefficients)]
    # Chebyshev, two terms over two layers: θ(½) = Θ_0 - Θ_1/2, θ(3/2) = Θ_0 + Θ_1/2.
    assert np.allclose(found.coefficients, [rms([x[k] for x in terms]) for k in range(2)])
    middles = [rms([x[0] + sign * x[1] / 2 for x in terms]) for sign in (-1, 1)]
    assert np.allclose(found.weights, middles)


SEEN = """
<script>
const seen = [...document.querySelectorAll('svg')].map(svg => {
  const frame = svg.getBoundingClientRect();
  const lines = [...svg.querySelectorAll('g[id^="line2d"] path')].filter(path => {
    const box = path.getBoundingClientRect();
    const drawn = getComputedStyle(path).stroke;
    return path.getTotalLength() > 20 && drawn !== 'none' && box.left >= frame.left - 1
      && box.right <= frame.right + 1 && box.top >= frame.top && box.bottom <= frame.bottom;
  });
  const texts = [...svg.querySelectorAll('text')].filter(text => {
    const box = text.getBoundingClientRect();
    return box.width > 0 && box.left >= frame.left - 1 && box.right <= frame.right + 1;
  });
  return {name: svg.getAttribute('aria-label'), width: frame.width, height: frame.height,
          lines: lines.length, texts: texts.map(text => text.textContent),
          outside: svg.querySelectorAll('text').length - texts.length,
          ink: getComputedStyle(svg.querySelector('text')).fill};
});
document.body.innerHTML = '<pre id="seen">' + JSON.stringify(seen).replace(/</g, '&lt;');
</script>
"""


def seen(page, *options):
    """What Chromium draws of the figures of a page."""
    watched = page.with_name("watched.html")
    watched.write_text(page.read_text(encoding="utf-8").replace("</body>", f"{SEEN}</body>"))
    command = [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom"]
    done = subprocess.run(
        [*command, f"--user-data-dir={page.parent}/browser", *options, watched.as_uri()],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    found = re.search(r'<pre id="seen">(.*?)</pre>', done.stdout, re.S)
    assert found is not None, done.stdout
    return {figure["name"]: figure for figure in json.loads(html.unescape(found[1]))}


@pytest.mark.heavy
@pytest.mark.skipif(BROWSER is None, reason="no Chromium (Debian package chromium)")
def test_every_figure_is_drawn_in_a_browser(runs, tmp_path, capsys):
    page = tmp_path / "report.html"
    output = run_here(capsys, "report.py", *runs, "--output", page)
    assert f"report: {page}" in output and "lost is shown without its model" in output
    text = page.read_text(encoding="utf-8")
    titles = re.findall("<h2>(.*?)</h2>", text)
    assert titles == [
        *("Results and cost", "Loss", "Norms over depth", "Learned coefficients"),
        *("Adaptive steps", "Samples", "Differences of configuration"),
    ]
    assert "Not finished: lost." in text and "lost is not drawn: " in text
    assert html.escape((runs[0] / "sample.txt").read_text().rstrip("\n")) in text
    figures = seen(page)
    # Ticks and grids are lines too; what is counted is at least the curves.
    curves = {
        "Loss 1": 6,
        "Norms over depth 1": 6,
        "Adaptive steps 1": 1,
        "Adaptive steps 2": 1,
    }
    curves |= {f"Learned coefficients {n}": 2 for n in (1, 2, 3)}
    curves |= {"Learned coefficients 4": 1}
    assert figures.keys() == curves.keys()
    for name, figure in figures.items():
        assert figure["width"] > 300 and figure["height"] > 200, figure
        assert figure["lines"] >= curves[name] and not figure["outside"], figure
    assert {"smooth", "lost", "adaptive"} <= {*figures["Loss 1"]["texts"]}
    assert {"accepted", "rejected"} <= {*figures["Adaptive steps 1"]["texts"]}
    inks = {figure["ink"] for figure in figures.values()}
    dark = seen(page, "--blink-settings=preferredColorScheme=0")
    assert inks == {"rgb(28, 28, 28)"}
    assert {figure["ink"] for figure in dark.values()} == {"rgb(230, 230, 230)"}
