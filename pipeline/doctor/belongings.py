"""Belongings: data sets, weights, candidate stores and runs that are here. What is damaged is a line of the report."""

import hashlib
import os
import shlex
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path

from semires.cache.reader import CandidateStore
from semires.pipeline.doctor.findings import Finding, gibibytes, guarded
from semires.pipeline.paths import Paths
from semires.pipeline.progress import OnProgress
from semires.stages.data.download.run import is_here
from semires.stages.data.download.sources import SOURCES, Source, SourceFile
from semires.stages.data.splits import SPLITS

_BLOCK = 2**22
_MOST_STORES = 50


def look_at_data(paths: Paths, *, thorough: bool = False) -> Iterator[Finding]:
    """Every data set of which a file is here, with its image files; the published ones also where they are not.

    thorough: each is read, and its refs counted.
    """
    for name in SPLITS:
        is_published = name in ("refcoco", "refcoco+", "refcocog")
        if name == "refshapes" and paths.missing_files(name):
            yield Finding(what=name, found="not drawn yet; commands that need it do so in seconds")
        elif not paths.missing_files(name):
            yield guarded(name, partial(_data_set, name, paths, thorough), f"semires data check {name}")
        elif paths.has_annotations(name) or is_published:
            missing = ", ".join(str(path) for path in paths.missing_files(name))
            remedy = "semires data download" + (f" {name} coco-train2014" if is_published else "")
            yield Finding(what=name, found=f"missing: {missing}", state="missing", remedy=remedy)


def _data_set(name: str, paths: Paths, thorough: bool) -> Finding:
    images = paths.images_of(name) or paths.data / SPLITS[name].images
    found = f"{sum(1 for _ in _files_in(images)):,} image files"
    if not thorough:
        return Finding(what=name, found=found)
    from semires.pipeline.datasets import read_dataset

    dataset = read_dataset(paths, name)
    counts = ", ".join(f"{split} {len(dataset.refs_of(split)):,}" for split in ("train", *dataset.spec.evaluation))
    return Finding(what=name, found=f"{found}; refs: {counts}")


def _files_in(folder: Path) -> Iterable[os.DirEntry[str]]:
    with os.scandir(folder) as entries:
        yield from (entry for entry in entries if not entry.name.startswith("."))


def look_at_weights(paths: Paths, on_progress: OnProgress, *, thorough: bool = False) -> Iterator[Finding]:
    """The shipped model, and what `semires data download` fetches; thorough: compared with the published sha256."""
    yield guarded("shipped model", _shipped)
    for name, source in SOURCES.items():
        if source.unpacking is not None:
            continue  # data sets and images: told above
        if not is_here(source, paths.data):
            yield Finding(what=name, found="not here", state="missing", remedy=f"semires data download {name}")
        elif thorough:
            yield guarded(name, partial(_hashed, source, paths.data, on_progress))
        else:
            yield Finding(what=name, found=f"{source.target(paths.data)}, of the published size")


def _shipped() -> Finding:
    from semires.pipeline.predicting.predictor import shipped_folder

    size = (shipped_folder() / "model.safetensors").stat().st_size
    return Finding(what="shipped model", found=f"LAVT-nano of RefShapes, {gibibytes(size)}")


def _hashed(source: Source, root: Path, on_progress: OnProgress) -> Finding:
    differing, unknown = list[str](), list[str]()
    for file in source.files:
        if file.sha256 is None:
            unknown.append(file.path)
        elif _sha256(file, root / source.folder / file.path, on_progress) != file.sha256:
            differing.append(file.path)
    target = source.target(root)
    if differing:
        remedy = f"move it away, then semires data download {source.name}"
        return Finding(
            what=source.name,
            found=f"{target}: another sha256 in {', '.join(differing)}",
            state="missing",
            remedy=remedy,
        )
    return Finding(
        what=source.name,
        found=f"{target}, " + ("of a sha256 that nobody has published" if unknown else "of the published sha256"),
    )


def _sha256(file: SourceFile, path: Path, on_progress: OnProgress) -> str:
    digest, done, total = hashlib.sha256(), 0, max(1, path.stat().st_size)
    with path.open("rb") as opened:
        while block := opened.read(_BLOCK):
            digest.update(block)
            done += len(block)
            on_progress(f"sha256 of {Path(file.path).name}", done, total)
    return digest.hexdigest()


def look_at_stores(paths: Paths) -> Iterator[Finding]:
    """The candidate stores below the data root: images, masks, whose."""
    folder = paths.data / "cache"
    found = sorted(folder.glob("*.zarr")) if folder.is_dir() else []
    for location in found[:_MOST_STORES]:
        remedy = f"semires cache verify {shlex.quote(str(location))}"
        yield guarded(location.name, partial(_store, location), remedy)
    if len(found) > _MOST_STORES:
        yield Finding(what="stores", found=f"{len(found) - _MOST_STORES} more in {folder}")
    if not found:
        yield Finding(what="stores", found=f"none in {folder} yet")


def _store(location: Path) -> Finding:
    info = CandidateStore(location).info()
    manifest = info.manifest
    of = "" if manifest.num_images is None else f" of {manifest.num_images:,}"
    text = f"{info.num_images:,}{of} images, {info.num_masks:,} candidates of SAM {manifest.sam}"
    if manifest.num_images is None or info.num_images + len(info.failed) >= manifest.num_images:
        return Finding(what=location.name, found=text)
    remedy = f"type the {manifest.made_by} that made it again"
    return Finding(what=location.name, found=text, state="missing", remedy=remedy)


def look_at_runs(paths: Paths) -> Iterator[Finding]:
    """How many runs there are, finished and not."""
    folders = [*paths.runs.glob("*/config.json"), *paths.runs.glob("studies/*/config.json")]
    finished = sum((path.parent / "result.json").is_file() for path in folders)
    unfinished = len(folders) - finished
    text = f"{finished} finished, {unfinished} not, in {paths.runs}"
    yield Finding(what="runs", found=text if folders else f"none in {paths.runs} yet")
