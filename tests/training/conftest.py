import pytest
from training.small_run import TEXT, config

from ide_transformer import training


@pytest.fixture(scope="session")
def whole(tmp_path_factory):
    """The folder of a run with two checkpoints, and the weights at the end."""
    there = tmp_path_factory.mktemp("whole")
    (there / "text.txt").write_text(TEXT)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training.run, "plot_run", lambda *_: None)
        run = training.train(config(there / "text.txt"), runs=there / "runs")
    run.summary.unlink()
    return there, training.load_run(run.path)[0]
