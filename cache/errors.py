"""The error for a store that cannot be used as asked."""

# What to do about a damaged store.
RESTORE = "restore it from a copy, or make it anew with `semires cache-sam --overwrite`"


class StoreError(ValueError):
    """A candidate store is missing, damaged or of other settings: one line that says what, and what to do.

    The command line prints it without a traceback and exits with code 2.
    """
