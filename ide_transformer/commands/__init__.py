"""The command `ide-transformer`: a module for each of its commands."""

from .command import main as main, run_script as run_script, start as start
