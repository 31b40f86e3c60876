"""The exception for input that a user can correct."""


class InputError(ValueError):
    """A value given by the user cannot be used.

    The message names the value, where it came from, why it is wrong and what to write
    instead. Scripts print it without a traceback and exit with status 2.
    """
