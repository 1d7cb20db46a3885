"""Packages: what semires requires and what its extras take, as its own metadata has it, beside what is installed."""

from collections.abc import Iterator
from importlib import import_module
from importlib.metadata import PackageNotFoundError, requires, version

from packaging.requirements import Requirement
from packaging.version import InvalidVersion

from semires.pipeline.doctor.findings import Finding, line_of

_MODULES = {"pillow": "PIL"}
"""Packages that are imported under another name than their own."""
_NO_EXTRAS = ("dev", "docs")
"""Extras of who develops semires."""


def look_at_packages() -> Iterator[Finding]:
    """semires, every required package, which is imported, every extra with what it lacks."""
    yield Finding(what="semires", found=version("semires"))
    required, extras = list[Requirement](), dict[str, list[Requirement]]()
    for text in requires("semires") or []:
        requirement = Requirement(text)
        extra = _extra_of(requirement)
        if extra is None:
            required.append(requirement)
        elif extra not in _NO_EXTRAS:
            extras.setdefault(extra, []).append(requirement)
    for requirement in required:
        found, is_good = _installed(requirement)
        remedy = "" if is_good else f"pip install '{requirement.name}{requirement.specifier}'"
        if is_good:
            try:
                import_module(_MODULES.get(requirement.name, requirement.name.replace("-", "_")))
            except Exception as error:
                found, is_good = f"{found}, which does not import: {line_of(error)}", False
                remedy = f"pip install --force-reinstall --no-deps {requirement.name}"
        yield Finding(what=requirement.name, found=found, state="good" if is_good else "bad", remedy=remedy)
    for extra, requirements in extras.items():
        lacking = [requirement for requirement in requirements if not _installed(requirement)[1]]
        if lacking:
            names = ", ".join(f"{one.name} ({_installed(one)[0]})" for one in lacking)
            yield Finding(
                what=f"semires[{extra}]", found=names, state="missing", remedy=f"pip install 'semires[{extra}]'"
            )
        else:
            names = ", ".join(f"{one.name} {version(one.name)}" for one in requirements)
            yield Finding(what=f"semires[{extra}]", found=names)


def _extra_of(requirement: Requirement) -> str | None:
    """The extra that a requirement is of: its marker holds with that alone."""
    if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
        return None
    text = str(requirement.marker)
    return text.partition("extra == ")[2].strip("\"'") or None


def _installed(requirement: Requirement) -> tuple[str, bool]:
    try:
        found = version(requirement.name)
    except PackageNotFoundError:
        return "not installed", False
    try:
        is_good = requirement.specifier.contains(found, prereleases=True)
    except InvalidVersion:
        is_good = False
    return (found, True) if is_good else (f"{found}, expected {requirement.specifier}", False)
