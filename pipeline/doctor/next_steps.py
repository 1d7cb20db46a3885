"""Next steps: what each command can do now, and what to type for what it lacks."""

import os
from collections.abc import Iterator
from functools import partial
from importlib.util import find_spec
from pathlib import Path

from semires.pipeline.doctor.findings import Finding, guarded
from semires.pipeline.paths import Paths
from semires.stages.data.download.run import is_here
from semires.stages.data.download.sources import SOURCES


def look_at_next_steps(paths: Paths, *, can_train: bool) -> Iterator[Finding]:
    """A line a command, or a data set of it. can_train: whether nothing keeps the main job from running."""
    if can_train:
        yield Finding(what="train, table1, study, report", found="RefShapes now", remedy="make reproduce-table1")
    else:
        yield Finding(what="train, table1, study, report", found="not before the above is mended", state="bad")
    predicting = "predict, demo, bench"
    yield (
        guarded(predicting, partial(_shipped, predicting))
        if can_train
        else Finding(what=predicting, found="not before the above is mended", state="missing")
    )
    yield Finding(what="cache-sam, train on own data", found="with SAM's weights", remedy="docs/own-data.md")
    yield _extra("demo", "gradio", "a page in the browser", "semires demo", "demo")
    for split in ("refcoco", "refcoco+", "refcocog"):
        yield _published(split, paths)
    yield _extra(
        "study --launcher slurm", "submitit", "jobs of a cluster", "semires study NAME --launcher slurm", "slurm"
    )
    yield _extra("stores at s3://", "s3fs", "stores behind URLs", "semires cache-sam --store s3://…", "remote")
    yield _extra("export --format onnx", "onnx", "ONNX", "semires export RUN --format onnx", "onnx")


def _shipped(what: str) -> Finding:
    from semires.pipeline.predicting.predictor import shipped_folder

    shipped_folder()
    found = "drawn shapes, by the shipped model; photographs with --run or --model"
    return Finding(what=what, found=found, remedy='semires predict IMAGE "EXPRESSION"')


def _extra(what: str, package: str, found: str, command: str, extra: str) -> Finding:
    if find_spec(package) is not None:
        return Finding(what=what, found=found, remedy=command)
    return Finding(what=what, found=f"needs {package}", state="missing", remedy=f"pip install 'semires[{extra}]'")


def _published(split: str, paths: Paths) -> Finding:
    """The first step that is missing on the way from nothing to a trained model of a published data set."""
    what = f"train --split {split}"

    def lacks(found: str, remedy: str) -> Finding:
        return Finding(what=what, found=found, state="missing", remedy=remedy)

    if paths.missing_files(split):
        return lacks("needs the data", f"semires data download {split} coco-train2014")
    weights = [name for name in ("swin-base", "bert") if not is_here(SOURCES[name], paths.data)]
    if weights:
        return lacks(
            f"needs weights, or takes them from the hub: {', '.join(weights)}",
            f"semires data download {' '.join(weights)}",
        )
    if not Path(paths.store(split)).exists():
        if not is_here(SOURCES["sam-vit-h"], paths.data):
            return lacks("needs candidates, and a SAM for them", "semires data download sam-vit-h")
        checkpoint = SOURCES["sam-vit-h"].target(paths.data)
        return lacks("needs candidates", f"semires cache-sam --split {split} --sam-checkpoint {os.fspath(checkpoint)}")
    swin, bert = (SOURCES[name].target(paths.data) for name in ("swin-base", "bert"))
    return Finding(
        what=what,
        found="data, candidates and weights are here",
        remedy=f"semires train --split {split} --swin {swin} --bert {bert}",
    )
