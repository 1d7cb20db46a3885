"""A RefShapes of twelve train images, and a study of it whose runs take a few steps."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from semires.pipeline import datasets
from semires.pipeline.paths import Paths
from semires.pipeline.study.description import Study, parse_study
from semires.stages.data.refshapes.writer import RefShapesConfig

METHODS = ("supervised", "baseline", "semires", "semires-cc")
FEW_STEPS = {"burn_in_epochs": 1, "mutual_epochs": 1, "num_evaluations": 1, "batch_unlabeled": 12}


@pytest.fixture
def tiny_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refshapes_store: Path) -> Paths:
    """A small RefShapes whose candidates are there."""
    monkeypatch.setattr(datasets, "REFSHAPES", RefShapesConfig(num_train=12, num_val=2, num_test=2))
    paths = Paths(data=tmp_path / "data", runs=tmp_path / "runs", reports=tmp_path / "reports")
    paths.store("refshapes").parent.mkdir(parents=True)
    # The shared store holds every train image: nothing is cached anew. Copied, for its view is built in it.
    shutil.copytree(refshapes_store, paths.store("refshapes"))
    return paths


@pytest.fixture
def tiny_study() -> Study:
    """All methods at a quarter of the labels."""
    return study_of(*METHODS)


def study_of(*methods: str, **content: Any) -> Study:
    """A study of runs of a few steps, a row a method."""
    rows = [{"name": method.upper(), "method": method} for method in methods]
    plain = {"splits": ["refshapes"], "shares": [0.25], "settings": FEW_STEPS, "rows": rows}
    return parse_study("tiny", plain | content)
