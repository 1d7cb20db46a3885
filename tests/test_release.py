"""What says of the package who may use it, how it is cited and where it is tested: files that no code reads."""

import re
import tomllib
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[1]


def read_yaml(path: str) -> Any:
    return yaml.safe_load((ROOT / path).read_text(encoding="utf-8"))


def project() -> dict[str, Any]:
    found: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return found


def test_citation__of_the_software_and_the_paper() -> None:
    citation = read_yaml("CITATION.cff")
    assert (citation["cff-version"], citation["type"]) == ("1.2.0", "software")
    assert citation["license"] == project()["license"]
    paper = citation["preferred-citation"]
    assert paper["title"].startswith("SAM as the Guide: Mastering Pseudo-Label Refinement")
    assert [author["family-names"] for author in paper["authors"]] == ["Yang", "Ji", "Ma", "Guo", "Wang", "Sun", "Ji"]
    assert paper["identifiers"][0]["value"] == "arXiv:2406.01451"


def test_workflow__runs_ci_on_every_python_that_is_named() -> None:
    job = read_yaml(".github/workflows/ci.yml")["jobs"]["ci"]
    named = [line.rpartition(" ")[2] for line in project()["classifiers"] if re.search(r":: 3\.\d+$", line)]
    assert job["strategy"]["matrix"]["python"] == named
    assert project()["requires-python"] == f">={named[0]}"
    assert [step["run"] for step in job["steps"] if "run" in step] == [".ci/run"]


def test_dockerfile__is_given_what_the_wheel_is_made_of() -> None:
    ignored = (ROOT / ".dockerignore").read_text(encoding="utf-8").split()
    given = {line.removeprefix("!") for line in ignored if line.startswith("!")}
    top = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]["package-dir"]
    needed = {
        *(Path(folder).parts[0] for folder in top.values()),
        "pyproject.toml",
        project()["readme"],
        *project()["license-files"],
        "constraints.txt",
    }
    assert given == needed


def test_version__is_no_number_in_a_file() -> None:
    assert "version" not in project()
    assert project()["dynamic"] == ["version"]
