"""The command `ide-transformer train`."""

from commands import main


if __name__ == "__main__":
    main("train")
