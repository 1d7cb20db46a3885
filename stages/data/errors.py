"""The error for input that a user can put right."""


class InputError(ValueError):
    """Bad input: one line that says what was expected, what was found and what to do.

    The command line prints it without a traceback and exits with code 2.
    """
