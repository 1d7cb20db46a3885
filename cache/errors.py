"""The error for a store that cannot be used as asked."""


class StoreError(ValueError):
    """A candidate store is missing, damaged or of other settings: one line that says what, and what to do.

    The command line prints it without a traceback and exits with code 2.
    """
