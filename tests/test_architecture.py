"""Holds the picture in the README's architecture section: who may import whom, and how the packages are laid out."""

import ast
import tomllib
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = ("pipeline", "stages", "cache")
MAX_LINES = 350
MAX_MODULES = 15

DATA, CACHE, PROCESSES = "semires.stages.data", "semires.cache", "semires.stages.processes"
CACHE_SAM, TRAIN, PIPELINE = "semires.stages.cache_sam", "semires.stages.train", "semires.pipeline"
RUNNING = f"{PIPELINE}.running"
BENCH, IMPORTING, FILES = f"{PIPELINE}.bench", f"{DATA}.importing", f"{DATA}.files"
API, NOTEBOOK = Path("pipeline/api"), f"{PIPELINE}.notebook"  # the folder of the package `semires` itself
STAGES = {
    *(DATA, FILES, PROCESSES, CACHE, CACHE_SAM, f"{CACHE_SAM}.models", f"{CACHE_SAM}.generator"),
    *(TRAIN, f"{TRAIN}.models", f"{TRAIN}.matching", f"{TRAIN}.engine", f"{TRAIN}.reading", f"{TRAIN}.labels"),
}

# Innermost first: a module belongs to the first package that its name begins with.
ALLOWED = {
    # Other formats are written into one layout, and its reader knows nothing of them.
    IMPORTING: {DATA, FILES, IMPORTING},
    FILES: {DATA, FILES},  # of data the error alone (below)
    DATA: {DATA, FILES},
    PROCESSES: {DATA, PROCESSES},
    # The funnel knows no SAM by name, the SAMs know the funnel's settings.
    f"{CACHE_SAM}.generator": {DATA, PROCESSES, CACHE, f"{CACHE_SAM}.generator"},
    f"{CACHE_SAM}.models": {DATA, FILES, f"{CACHE_SAM}.generator", f"{CACHE_SAM}.models"},
    CACHE_SAM: {DATA, PROCESSES, CACHE, CACHE_SAM, f"{CACHE_SAM}.models", f"{CACHE_SAM}.generator"},
    # Models know nothing of the trainer, matching nothing of the models, and neither of the store; the engine none of
    # them.
    f"{TRAIN}.models": {DATA, FILES, f"{TRAIN}.models"},
    f"{TRAIN}.matching": {DATA, f"{TRAIN}.matching", f"{TRAIN}.engine"},
    f"{TRAIN}.engine": {DATA, PROCESSES, f"{TRAIN}.engine"},
    # What is read knows nothing of what is learned from it, labels nothing of the trainer.
    f"{TRAIN}.reading": {DATA, CACHE, f"{TRAIN}.models", f"{TRAIN}.reading"},
    f"{TRAIN}.labels": {DATA, *(f"{TRAIN}.{room}" for room in ("models", "engine", "reading", "labels"))},
    TRAIN: {
        *(DATA, FILES, PROCESSES, CACHE, TRAIN),
        *(f"{TRAIN}.{room}" for room in ("models", "matching", "engine", "reading", "labels")),
    },
    "semires.stages": set(),
    # Other programs' files: the store and the stages know nothing of them.
    f"{CACHE}.interchange": {CACHE, f"{CACHE}.interchange"},
    CACHE: {CACHE},
    # What a benchmark works on knows nothing of who is measured, nor that of the benchmark.
    f"{BENCH}.inputs": {*STAGES, f"{BENCH}.inputs"},
    f"{BENCH}.measures": {*STAGES, f"{BENCH}.inputs", f"{BENCH}.measures"},
    f"{BENCH}.contestants": {*STAGES, f"{BENCH}.inputs", f"{BENCH}.measures", f"{BENCH}.contestants"},
    BENCH: {
        *(*STAGES, PIPELINE, RUNNING, BENCH, f"{BENCH}.inputs", f"{BENCH}.measures", f"{BENCH}.contestants"),
        f"{PIPELINE}.predicting",
    },
    # The plan of one run knows nothing of studies, which plan many by it.
    f"{PIPELINE}.planning.studies": {*STAGES, PIPELINE, f"{PIPELINE}.planning", f"{PIPELINE}.planning.studies"},
    f"{PIPELINE}.planning": {*STAGES, PIPELINE, f"{PIPELINE}.planning"},
    f"{PIPELINE}.scoring": {*STAGES, PIPELINE, f"{PIPELINE}.scoring"},
    # Runs are scored when they are done; what scores them starts none.
    # A model that was trained, and what it says of images; how it was trained is nobody's business here.
    f"{PIPELINE}.predicting": {*STAGES, PIPELINE, f"{PIPELINE}.predicting"},
    f"{PIPELINE}.demo": {
        *(*STAGES, PIPELINE),
        *(f"{PIPELINE}.{room}" for room in ("predicting", "reporting", "demo")),
    },
    # It asks the code that chooses, and runs nothing.
    f"{PIPELINE}.doctor": {*STAGES, PIPELINE, RUNNING, f"{PIPELINE}.predicting", f"{PIPELINE}.doctor"},
    RUNNING: {*STAGES, PIPELINE, RUNNING, f"{PIPELINE}.scoring"},
    # Templates know nothing of what they show.
    f"{PIPELINE}.reporting.html": {f"{PIPELINE}.reporting.html"},
    f"{PIPELINE}.reporting": {
        *(*STAGES, PIPELINE, RUNNING),
        *(f"{PIPELINE}.{room}" for room in ("scoring", "reporting", "reporting.html")),
    },
    # What is counted knows nothing of what is shown.
    f"{PIPELINE}.audit.pictures": {
        *(*STAGES, PIPELINE, RUNNING),
        *(f"{PIPELINE}.{room}" for room in ("scoring", "reporting", "reporting.html", "audit", "audit.pictures")),
    },
    f"{PIPELINE}.audit": {
        *(*STAGES, PIPELINE, RUNNING),
        *(f"{PIPELINE}.{room}" for room in ("scoring", "reporting", "audit")),
    },
    f"{PIPELINE}.study": {
        *(*STAGES, PIPELINE, RUNNING),
        *(f"{PIPELINE}.{room}" for room in ("planning", "planning.studies", "scoring", "reporting", "audit", "study")),
    },
    # The page of all that was measured: it reads every room that measures, and none knows of it.
    f"{PIPELINE}.report": {
        *(*STAGES, PIPELINE, RUNNING),
        *(f"{PIPELINE}.{room}" for room in ("scoring", "reporting", "reporting.html", "study", "report")),
        *(f"{PIPELINE}.{room}" for room in ("audit", "audit.pictures")),
    },
    f"{PIPELINE}.commands": {
        *(*STAGES, IMPORTING, f"{CACHE}.interchange", PIPELINE, f"{PIPELINE}.commands"),
        # The rooms of the benchmarks are theirs, but for the report that they all give.
        *(BENCH, f"{BENCH}.measures"),
        *(f"{PIPELINE}.{room}" for room in ("running", "planning", "scoring", "reporting", "study", "report")),
        *(f"{PIPELINE}.{room}" for room in ("audit", "audit.pictures", "predicting", "demo", "doctor")),
    },
    f"{PIPELINE}.cli": {*STAGES, PIPELINE, f"{PIPELINE}.commands"},
    # Called by people, in a notebook, and by nobody of ours.
    NOTEBOOK: {*STAGES, PIPELINE, RUNNING, f"{PIPELINE}.predicting", NOTEBOOK},
    PIPELINE: {*STAGES, PIPELINE, RUNNING, f"{PIPELINE}.scoring", f"{PIPELINE}.reporting"},
    # `python -m semires` is the command line; `import semires` names of what is elsewhere.
    "semires.__main__": {f"{PIPELINE}.cli"},
    "semires": {*STAGES, NOTEBOOK},
}


def module_paths() -> list[Path]:
    return sorted(path.relative_to(ROOT) for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))


def module_name(path: Path) -> str:
    if path.parent == API:
        return "semires" if path.stem == "__init__" else f"semires.{path.stem}"
    parts = path.with_suffix("").parts
    return ".".join(("semires", *(parts[:-1] if parts[-1] == "__init__" else parts)))


def package_of(name: str) -> str | None:
    """The key of `ALLOWED` that a module's name is under; None for what is not ours.

    What `import semires` brings, `semires.match`, is under `semires` itself, as is a name that nobody has.
    """
    return next((package for package in ALLOWED if name == package or name.startswith(f"{package}.")), None)


def imported_names(source: str) -> set[str]:
    """Full names that a module imports, in functions too; `from a import b` counts as `a.b`, a relative one as `.`."""
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            prefix = "." * node.level + (node.module or "")
            names.update(f"{prefix}.{alias.name}" for alias in node.names)
    return names


def violations(name: str, source: str) -> list[str]:
    """What module `name` imports against the arrows."""
    own = package_of(name)
    assert own is not None, f"{name} is in no package of the picture"
    found = []
    for imported in sorted(imported_names(source)):
        package = package_of(imported)
        is_ours = imported.split(".")[0] == "semires"
        if imported.startswith(".") or (is_ours and package not in ALLOWED[own]):
            found.append(imported)
    return found


def pyproject() -> dict[str, dict[str, dict[str, list[str]]]]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


@pytest.mark.parametrize("path", module_paths(), ids=str)
def test_module__imports_along_the_arrows(path: Path) -> None:
    assert violations(module_name(path), (ROOT / path).read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    ("name", "source", "found"),
    [
        ("semires.cache.parts", "import semires.cache.bits\nimport zarr", []),
        (
            "semires.cache.parts",
            "from semires.stages.data.errors import InputError",
            ["semires.stages.data.errors.InputError"],
        ),
        ("semires.cache.parts", "import semires.stages.data.refer as refer", ["semires.stages.data.refer"]),
        ("semires.cache.parts", "from semires import pipeline", ["semires.pipeline"]),
        ("semires.cache.parts", "from semires.cache_tools import x", ["semires.cache_tools.x"]),
        ("semires.cache.interchange.coco", "from semires.cache.interchange.runs import a", []),
        ("semires.cache.interchange.coco", "from semires.cache.reader import CandidateStore", []),
        ("semires.cache.reader", "from semires.cache import interchange", ["semires.cache.interchange"]),
        ("semires.cache.storage.columns", "import semires.cache.interchange.coco", ["semires.cache.interchange.coco"]),
        ("semires.stages.data.masks", "def f():\n    from semires.cache import bits", ["semires.cache.bits"]),
        ("semires.stages.data.masks", "from semires.stages.data.images import load_image", []),
        (
            "semires.stages.data.refer",
            "import semires.stages.data.importing.run",
            ["semires.stages.data.importing.run"],
        ),
        ("semires.stages.data.masks", "from .images import load_image", [".images.load_image"]),
        ("semires.stages.data.masks", "from . import images", ["..images"]),
        ("semires.stages.train.trainer", "from semires.stages import cache_sam", ["semires.stages.cache_sam"]),
        ("semires.stages.train.trainer", "import semires", ["semires"]),
        ("semires.stages.train.trainer", "from semires.cache.reader import CandidateStore", []),
        ("semires.stages.train.trainer", "from semires.cache import interchange", ["semires.cache.interchange"]),
        ("semires.stages.cache_sam.run", "import semires.stages.train.views", ["semires.stages.train.views"]),
        ("semires.stages.cache_sam.run", "from semires.pipeline.cli import main", ["semires.pipeline.cli.main"]),
        ("semires.pipeline.cli", "from semires.stages.train.run import a\nfrom semires.cache import b", []),
        (
            "semires.pipeline.scoring.scores",
            "import semires.pipeline.running.stage_runs",
            ["semires.pipeline.running.stage_runs"],
        ),
        ("semires.pipeline.running.jobs", "import semires.pipeline.scoring.scores", []),
        (
            "semires.stages.train.models.build",
            "from semires.stages.train.config import TrainConfig",
            ["semires.stages.train.config.TrainConfig"],
        ),
        (
            "semires.stages.train.matching.cpu",
            "from semires.stages.train.models import lavt",
            ["semires.stages.train.models.lavt"],
        ),
        ("semires.stages.train.models.lavt", "import semires.cache.views", ["semires.cache.views"]),
        (
            "semires.stages.train.reading.samples",
            "import semires.stages.train.labels.teacher",
            ["semires.stages.train.labels.teacher"],
        ),
        (
            "semires.stages.train.labels.teacher",
            "from semires.stages.train.trainer import Trainer",
            ["semires.stages.train.trainer.Trainer"],
        ),
        (
            "semires.stages.cache_sam.generator.prompts",
            "import semires.stages.cache_sam.models.sam",
            ["semires.stages.cache_sam.models.sam"],
        ),
        ("semires.pipeline.recipes", "import semires.pipeline.commands.train", ["semires.pipeline.commands.train"]),
        ("semires.pipeline.bench.cache", "import semires.cache.interchange.coco", ["semires.cache.interchange.coco"]),
        (
            "semires.pipeline.bench.inputs.step_data",
            "import semires.pipeline.bench.contestants.steps",
            ["semires.pipeline.bench.contestants.steps"],
        ),
        (
            "semires.pipeline.bench.contestants.steps",
            "import semires.pipeline.bench.step",
            ["semires.pipeline.bench.step"],
        ),
        (
            "semires.pipeline.commands.candidates.interchange",
            "def f():\n    from semires.cache.interchange.export import export_coco",
            [],
        ),
    ],
)
def test_violations__finds_them(name: str, source: str, found: list[str]) -> None:
    assert violations(name, source) == found


def test_files__know_of_data_the_error_alone() -> None:
    """How a pickle or a zip is opened has nothing to do with what a data set is."""
    for path in (ROOT / "stages" / "data" / "files").glob("*.py"):
        ours = {name for name in imported_names(path.read_text(encoding="utf-8")) if name.startswith(DATA)}
        assert all(name.startswith((f"{DATA}.errors.", f"{FILES}.")) for name in ours), path


@pytest.mark.parametrize("path", module_paths(), ids=str)
def test_module__is_short(path: Path) -> None:
    assert len((ROOT / path).read_text(encoding="utf-8").splitlines()) <= MAX_LINES


def test_modules__are_all_seen() -> None:
    packages = {package_of(module_name(path)) for path in module_paths()}
    assert packages == set(ALLOWED)
    assert not {path.name for path in module_paths()} & {"utils.py", "helpers.py", "misc.py"}


def test_pyproject__lists_every_package_and_no_other() -> None:
    listed = pyproject()["tool"]["setuptools"]["packages"]
    folders = {path.parent for path in module_paths()}
    assert sorted(listed) == sorted(module_name(folder / "__init__.py") for folder in folders)
    for folder in folders:
        assert (ROOT / folder / "__init__.py").is_file()


def test_pyproject__every_top_folder_has_its_import_name() -> None:
    mapped = pyproject()["tool"]["setuptools"]["package-dir"]
    assert mapped == {"semires": str(API)} | {f"semires.{folder}": folder for folder in FOLDERS}
    assert {path.name for path in (ROOT / API).glob("*.py")} == {"__init__.py", "__main__.py"}  # links give both
    for folder in mapped.values():
        assert (ROOT / folder / "py.typed").is_file()


def test_folders__have_no_floor_of_many_modules() -> None:
    """What is more than some fifteen files is several households; __init__ is none of them."""
    floors = Counter(path.parent for path in module_paths() if path.stem != "__init__")
    assert {str(folder): count for folder, count in floors.items() if count > MAX_MODULES} == {}


def test_tests__mirror_the_tree() -> None:
    """A test file lies where the module lies that it is named after, `test_MODULE.py` or `test_MODULE__ABOUT.py`; at
    the top are tests of the whole."""
    modules = {path.parent / f"test_{path.name}" for path in module_paths()}
    tests = {path.relative_to(ROOT / "tests") for path in (ROOT / "tests").rglob("test_*.py")}
    named_after = {path: path.with_name(path.stem.partition("__")[0] + ".py") for path in tests}
    strays = sorted(str(path) for path in tests if len(path.parts) > 1 and named_after[path] not in modules)
    assert strays == []
