"""The command `ide-transformer`: a module for each of its commands."""

from .command import main as main, run_script as run_script, start as start
from .options import (
    add_trust as add_trust,
    input_path as input_path,
    names as names,
    results_file as results_file,
    results_folder as results_folder,
)
