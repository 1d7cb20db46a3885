"""The errors for a store that cannot be used as asked."""

# What to do about damage, wherever it is found.
RESTORE = (
    "drop what is damaged with `semires cache verify STORE --repair`, then run `semires cache-sam` again, or "
    "`semires cache import` where the masks were imported: it makes only what is missing"
)


class StoreError(ValueError):
    """A candidate store is missing, damaged or of other settings: one line that says what, and what to do.

    The command line prints it without a traceback and exits with code 2.
    """


class DamageError(StoreError):
    """What is stored is not what was written: only making it anew helps.

    Verification counts this, and only this, as damage: a store that cannot be reached, or whose files this process
    may not read, loses nothing to a repair.
    """
