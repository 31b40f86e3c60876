"""The command `ide-transformer report`."""

import signal


# An interrupt ends the process at once, also while the package is imported.
signal.signal(signal.SIGINT, signal.SIG_DFL)

from ide_transformer.commands import main


if __name__ == "__main__":
    main("report")
