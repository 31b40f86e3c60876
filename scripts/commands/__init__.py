"""The commands of the package; an interrupt ends the process, also while it is imported."""

import signal


signal.signal(signal.SIGINT, signal.SIG_DFL)

from ide_transformer.commands import main as main, run_script as run_script, start as start
