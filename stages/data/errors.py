"""The error for input that a user can put right."""


class InputError(ValueError):
    """Bad input: one line that says what was expected, what was found and what to do.

    The command line prints it without a traceback and exits with code 2.
    """


def printable(text: str) -> str:
    """`text`, such as a file's name, which may hold line breaks and bytes that are not UTF-8, in one line of what can
    be printed: the rest as Python writes it, `\\n` or `\\udcfc`."""
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text)
