"""Numbers in the lines that a command prints."""


def counted(number: int, noun: str) -> str:
    """A number with its noun: `1 mask`, `2 masks`; for nouns whose plural ends in s."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
