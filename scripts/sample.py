"""The command `ide-transformer sample`."""

from commands import main


if __name__ == "__main__":
    main("sample")
