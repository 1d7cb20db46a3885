import sys

import pytest
from packaging.requirements import Requirement

from semires.pipeline.doctor import packages
from semires.pipeline.doctor.findings import Finding


def test_packages__old_and_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = ["numpy>=999", "no-such-package", 'also-missing>=2; extra == "demo"', 'pytest; extra == "dev"']
    monkeypatch.setattr(packages, "requires", lambda name: wanted)
    found = {one.what: one for one in packages.look_at_packages()}
    assert (found["numpy"].state, found["numpy"].remedy) == ("bad", "pip install 'numpy>=999'")
    assert found["numpy"].found.endswith(", expected >=999")
    assert found["no-such-package"].state == "bad"
    assert found["semires[demo]"] == Finding(
        what="semires[demo]",
        found="also-missing (not installed)",
        state="missing",
        remedy="pip install 'semires[demo]'",
    )
    assert "semires[dev]" not in found
    assert packages._extra_of(Requirement('x; python_version < "3"')) is None


def test_packages__installed_and_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packages, "requires", lambda name: ["pillow>=1", "rich"])
    monkeypatch.setitem(sys.modules, "PIL", None)
    _, pillow, rich = packages.look_at_packages()
    assert (pillow.state, pillow.remedy) == ("bad", "pip install --force-reinstall --no-deps pillow")
    assert "which does not import: ModuleNotFoundError" in pillow.found
    assert rich.state == "good"
