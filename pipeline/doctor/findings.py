"""Findings: what was looked at, what was found, and what to do about it."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Any, Literal

from semires.stages.data.errors import printable

State = Literal["good", "missing", "bad"]
"""missing: something optional is not here. bad: it keeps the main job, training on RefShapes, from running."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One line of the doctor's report; plain text of any characters."""

    what: str
    """What was looked at."""
    found: str
    """What was found, with units."""
    state: State = "good"
    remedy: str = ""
    """What to type, or to do; "" where nothing is to be done."""


@dataclass(frozen=True, kw_only=True)
class Section:
    """A part of the report."""

    title: str
    look: Callable[[], Iterable[Finding]]
    """Looks, and imports what it needs for that: what does not import is found in its own section."""
    is_needed: bool
    """Whether the main job needs what is looked at, so that it is bad where the looking fails."""


def examined(sections: Iterable[Section]) -> Iterator[tuple[str, list[Finding]]]:
    """What each section finds; one that fails is itself a finding, in a line, and the others are told all the same."""
    for section in sections:
        findings: list[Finding] = []
        try:
            findings.extend(section.look())
        except Exception as error:
            state: State = "bad" if section.is_needed else "missing"
            findings.append(Finding(what=section.title, found=line_of(error), state=state, remedy="mend this first"))
        yield section.title, findings


def guarded(what: str, look: Callable[[], Finding], remedy: str = "") -> Finding:
    """What `look` finds of one thing that may be anybody's; where that fails, why, in a line."""
    try:
        return look()
    except Exception as error:
        return Finding(what=what, found=line_of(error), state="missing", remedy=remedy)


def line_of(error: BaseException) -> str:
    """An error in one line of at most 200 characters."""
    text = " ".join(str(error).split()) or type(error).__name__
    return printable(f"{type(error).__name__}: {text}")[:200]


def report_json(sections: Iterable[tuple[str, list[Finding]]]) -> dict[str, Any]:
    """The report as plain values: {"can_train": …, "sections": {title: [{"what", "found", "state", "remedy"}, …]}}."""
    told = {title: [asdict(finding) for finding in findings] for title, findings in sections}
    return {
        "can_train": not any(one["state"] == "bad" for findings in told.values() for one in findings),
        "sections": told,
    }


def gibibytes(num_bytes: float) -> str:
    """A size in GiB, or in MiB below one."""
    return f"{num_bytes / 2**30:,.1f} GiB" if num_bytes >= 2**30 else f"{num_bytes / 2**20:,.0f} MiB"
