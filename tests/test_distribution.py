"""What is given away: sdist and wheel hold all that they should, and the wheel works where the repository is not."""

import re
import subprocess
import sys
import tarfile
import tomllib
import venv
import zipfile
from pathlib import Path
from typing import NamedTuple

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
FOLDERS = ("pipeline", "stages", "cache")

USER = """\
from semires.cache import CandidateStore

store = CandidateStore("x.zarr")
reveal_type(store[1].area)
num_masks: str = store.num_masks(1)
"""


class Built(NamedTuple):
    """The two archives, and a Python in whose environment only the wheel is installed, beside what it depends on."""

    sdist: Path
    wheel: Path
    python: Path


def installed_name(path: Path) -> str:
    """Where a file of the repository lies in the wheel, by pyproject's `package-dir`: the innermost folder decides."""
    setuptools = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]
    packages = {Path(folder): name for name, folder in setuptools["package-dir"].items()}
    folder = next(parent for parent in path.parents if parent in packages)
    return f"{packages[folder].replace('.', '/')}/{path.relative_to(folder)}"


def run(*words: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(list(map(str, words)), cwd=cwd, capture_output=True, text=True, timeout=500)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    place = tmp_path_factory.mktemp("dist")
    made = run(sys.executable, "-m", "build", "--no-isolation", "--outdir", place, ROOT, cwd=place)
    assert made.returncode == 0, made.stdout + made.stderr
    (sdist,), (wheel,) = place.glob("*.tar.gz"), place.glob("*.whl")
    venv.create(place / "venv", symlinks=True)
    (packages,) = (place / "venv" / "lib").glob("python*/site-packages")
    # The dependencies of the environment that tests run in; its own files that name the repository are not read so.
    (packages / "dependencies.pth").write_text("\n".join(path for path in sys.path if path.endswith("site-packages")))
    installed = run(
        *(sys.executable, "-m", "pip", "install", "--no-deps", "--no-index", "--target", packages, wheel), cwd=place
    )
    assert installed.returncode == 0, installed.stderr
    return Built(sdist, wheel, place / "venv" / "bin" / "python")


def test_archives__pass_the_indexs_checks(built: Built, tmp_path: Path) -> None:
    checked = run(sys.executable, "-m", "twine", "check", "--strict", built.sdist, built.wheel, cwd=tmp_path)
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_wheel__has_every_module_and_its_data_and_nothing_else(built: Built) -> None:
    with zipfile.ZipFile(built.wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
    expected = {
        installed_name(path.relative_to(ROOT))
        for folder in FOLDERS
        for path in (ROOT / folder).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert names == expected


def test_sdist__has_what_developing_needs(built: Built) -> None:
    with tarfile.open(built.sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    wanted = {"LICENSE", "README.md", "Makefile", "constraints.txt", "CHANGELOG.md", "CITATION.cff", "mkdocs.yml"}
    wanted |= {"tests/test_distribution.py", "docs/index.md", "docs/refinement.png", ".ci/run", "pipeline/py.typed"}
    assert wanted - names == set()


def test_wheel__works_without_the_repository(built: Built, tmp_path: Path) -> None:
    where = run(built.python, "-E", "-c", "import semires.pipeline.cli as cli; print(cli.__file__)", cwd=tmp_path)
    assert Path(where.stdout.strip()).is_relative_to(built.python.parents[1]), where.stderr
    said = run(built.python, "-E", "-m", "semires.pipeline.cli", "--version", cwd=tmp_path)
    assert said.stdout.split() == ["semires", built.wheel.name.split("-")[1]], said.stderr
    for words in (["make-refshapes"], ["data", "check", "refshapes"]):
        finished = run(built.python, "-E", "-m", "semires.pipeline.cli", *words, cwd=tmp_path)
        assert finished.returncode == 0, (words, finished.stderr)


@pytest.mark.parametrize("checker", ["mypy", "pyright"])
def test_wheel__types_are_seen(built: Built, tmp_path: Path, checker: str) -> None:
    """The package says that it is typed: of its result a checker knows the type, and what it may not be."""
    (tmp_path / "user.py").write_text(USER)
    options = {"mypy": ["--python-executable"], "pyright": ["--pythonpath"]}[checker]
    found = run(sys.executable, "-m", checker, *options, built.python, "user.py", cwd=tmp_path)
    lines = [line for line in found.stdout.splitlines() if "user.py:" in line]
    said = {int(line.split("user.py:")[1].split(":")[0]): line for line in lines}
    assert set(said) == {4, 5}, found.stdout + found.stderr
    assert "int32" in said[4] or "signedinteger" in said[4], said[4]
    assert set(re.findall(r'error|"int"|"str"', said[5])) == {"error", '"int"', '"str"'}, said[5]
