"""What tests of the command line share: running it in this process, a small RefShapes, a small fake RefCOCO."""

import json
import multiprocessing
import pickle
import re
import shlex
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from semires.cache.candidates import Candidates
from semires.cache.schema import Manifest
from semires.cache.writer import StoreWriter
from semires.pipeline import cli, datasets
from semires.pipeline.paths import Paths
from semires.pipeline.running import launching
from semires.pipeline.study.description import Study, parse_study
from semires.stages.cache_sam.models.tiny_sam import build_tiny_sam
from semires.stages.data.images import image_id_of
from semires.stages.data.refshapes.writer import RefShapesConfig
from semires.stages.data.splits import SPLITS

HEIGHT, WIDTH = 24, 32


@pytest.fixture
def quick_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let processes side by side share one import of torch and all else, which takes seconds in each."""
    multiprocessing.set_forkserver_preload(["semires.pipeline.study.command"])
    monkeypatch.setattr(launching, "CONTEXT", multiprocessing.get_context("forkserver"))


class TinyStudy(NamedTuple):
    """A study of a second or two, and where its data is and its runs go."""

    study: Study
    paths: Paths


@pytest.fixture
def tiny_study(
    tmp_path: Path,
    refshapes_root: Path,
    refshapes_store: Path,
    refshapes_config: RefShapesConfig,
    monkeypatch: pytest.MonkeyPatch,
) -> TinyStudy:
    """A burn-in and two methods of a few steps, on a RefShapes of 12 train images whose candidates are there, but for
    their view."""
    monkeypatch.setattr(datasets, "REFSHAPES", refshapes_config)
    study = parse_study(
        "tiny",
        {
            "splits": ["refshapes"],
            "against": "Supervised",
            "settings": {
                "labeled": 0.25,
                "burn_in_epochs": 2,
                "mutual_epochs": 1,
                "num_evaluations": 1,
                "batch_burn_in": 4,
                "batch_unlabeled": 12,
                "num_workers": 0,
            },
            "rows": [{"name": name, "method": name.lower()} for name in ("Supervised", "Baseline", "SemiRES")],
        },
    )
    paths = Paths(data=tmp_path / "data", runs=tmp_path / "runs", reports=tmp_path / "reports")
    shutil.copytree(refshapes_root, paths.data)
    shutil.copytree(refshapes_store, paths.store("refshapes"))  # its view is built in it
    return TinyStudy(study, paths)


@pytest.fixture
def commands(quick_processes: None) -> Iterator[Callable[..., Any]]:
    """`commands(code, name=value, …)` runs code in a process that need not import torch; what is still there at the end
    is killed."""
    started: list[Any] = []

    def start(code: str, **names: Any) -> Any:
        process = launching.CONTEXT.Process(target=exec, args=(code, names))
        process.start()
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.join()


class Finished(NamedTuple):
    """What a command left: exit code, standard output, standard error."""

    code: int
    out: str
    err: str


@pytest.fixture
def sam_file(tmp_path: Path) -> Path:
    """Weights of a tiny SAM that has learnt nothing."""
    torch.manual_seed(0)
    save_file(build_tiny_sam().state_dict(), tmp_path / "sam.safetensors")
    return tmp_path / "sam.safetensors"


@pytest.fixture
def semires(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., Finished]:
    """Run `semires ARGUMENTS` in this process, in an empty working directory."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: object) -> Finished:
        monkeypatch.setattr("sys.argv", ["semires", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as caught:
            cli.main()
        code = caught.value.code
        assert isinstance(code, int)
        # Where colours are forced (some CI), they would cut option names in two.
        out, err = (re.sub(r"\x1b\[[0-9;]*m", "", text) for text in capsys.readouterr())
        return Finished(code, out, err)

    return run


@pytest.fixture
def assert_refused() -> Callable[..., str]:
    """A user's error: exit code 2, one line on standard error, no traceback; returns the line."""

    def check(finished: Finished, *expected: str) -> str:
        assert finished.code == 2
        lines = finished.err.splitlines()
        assert len(lines) == 1, finished.err
        assert lines[0].startswith("error: ")
        assert "Traceback" not in finished.out + finished.err
        for text in expected:
            assert text in lines[0]
        return lines[0]

    return check


class FakeRefer(NamedTuple):
    """A data set in REFER's layout: its data root, image folder, and train image ids."""

    root: Path
    images: Path
    train_ids: list[int]


@pytest.fixture
def write_refer(tmp_path: Path) -> Callable[..., FakeRefer]:
    """Write a data set under a real one's name: COCO's image names, two polygons an image, both of them refs."""

    def write(
        split_name: str = "refcoco", *, num_train: int = 8, images: Path | None = None, image_files: bool = True
    ) -> FakeRefer:
        spec, root = SPLITS[split_name], tmp_path / "data"
        folder = images or root / spec.images
        folder.mkdir(parents=True, exist_ok=True)
        (root / spec.folder).mkdir(parents=True, exist_ok=True)
        rng = np.random.default_rng(0)
        splits = ["train"] * num_train + [name for name in spec.evaluation for _ in range(2)]
        image_ids = [1000 + 37 * n for n in range(len(splits))]
        records: dict[str, list[dict[str, Any]]] = {"images": [], "annotations": []}
        refs = []
        for image_id, split in zip(image_ids, splits, strict=True):
            name = f"COCO_train2014_{image_id:012d}.jpg"
            records["images"].append({"id": image_id, "file_name": name, "height": HEIGHT, "width": WIDTH})
            pixels = rng.integers(0, 80, (HEIGHT, WIDTH, 3), dtype=np.uint8)
            for number, (word, channel) in enumerate((("left", 0), ("right", 2))):
                x, y = 2 + 16 * number + int(rng.integers(3)), 3 + int(rng.integers(4))
                pixels[y : y + 12, x : x + 10, channel] = 255
                box = [x, y, x + 10, y, x + 10, y + 12, x, y + 12]
                ann_id = 10 * image_id + number
                records["annotations"].append(
                    {"id": ann_id, "image_id": image_id, "category_id": 1, "segmentation": [box]}
                )
                refs.append(
                    {
                        "ref_id": len(refs),
                        "ann_id": ann_id,
                        "image_id": image_id,
                        "category_id": 1,
                        "split": split,
                        "file_name": f"COCO_train2014_{image_id:012d}_{ann_id}.jpg",
                        "sent_ids": [0, 1],
                        "sentences": [
                            {"sent": text, "raw": f"{text.capitalize()}!", "sent_id": 0}
                            for text in (f"{word} box", f"box on the {word}")
                        ],
                    }
                )
            if image_files:
                Image.fromarray(pixels).save(folder / name, quality=95)
        instances = {**records, "categories": [{"id": 1, "name": "box"}]}
        (root / spec.folder / "instances.json").write_text(json.dumps(instances))
        (root / spec.folder / f"refs({spec.by}).p").write_bytes(pickle.dumps(refs, protocol=2))
        return FakeRefer(root, folder, image_ids[:num_train])

    return write


@pytest.fixture
def write_store() -> Callable[..., None]:
    """Write a store in which every image has its left half, its right half and a disc as candidates."""

    def write(location: Path, split: str, image_ids: list[int]) -> None:
        rows, columns = np.mgrid[:HEIGHT, :WIDTH]
        masks = np.stack([columns < WIDTH // 2, columns >= WIDTH // 2, (rows - 12) ** 2 + (columns - 10) ** 2 < 36])
        manifest = Manifest(split=split, sam="vit_h", sam_sha256="0" * 64, num_images=len(image_ids))
        with StoreWriter(location, manifest) as writer:
            for image_id in image_ids:
                writer.add(Candidates.from_masks(image_id, masks, np.ones(3), np.ones(3), np.ones((3, 2))))

    return write


class Own(NamedTuple):
    """A file of own data: its path, and the ids of its train images."""

    file: Path
    train_ids: list[int]


@pytest.fixture
def write_own(tmp_path: Path, write_refer: Callable[..., FakeRefer]) -> Callable[..., Own]:
    """Write my.jsonl about the images that `write_refer` writes, the masks of the first `num_labeled` train images and
    of val and testA among them; `change(lines)` may alter it first."""

    def write(*, num_labeled: int = 4, change: Callable[[list[dict[str, Any]]], None] | None = None) -> Own:
        fake = write_refer()
        instances = json.loads((fake.root / "refcoco" / "instances.json").read_text())
        names = {record["id"]: record["file_name"] for record in instances["images"]}
        polygons = {record["id"]: record["segmentation"] for record in instances["annotations"]}
        lines = []
        for ref in pickle.loads((fake.root / "refcoco" / "refs(unc).p").read_bytes()):
            if ref["split"] == "testB":
                continue
            image = str((fake.images / names[ref["image_id"]]).relative_to(tmp_path))
            texts = [sentence["raw"] for sentence in ref["sentences"]]
            line = {"image": image, "split": ref["split"], "expressions": texts}
            if ref["split"] != "train" or ref["image_id"] in fake.train_ids[:num_labeled]:
                line["mask"] = polygons[ref["ann_id"]]
            lines.append(line)
        if change is not None:
            change(lines)
        file = tmp_path / "my.jsonl"
        file.write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
        return Own(file, [image_id_of(fake.images.relative_to(tmp_path) / names[number]) for number in fake.train_ids])

    return write


@pytest.fixture
def typed_page(
    semires: Callable[..., Finished], fenced: Callable[..., list[tuple[str, str]]]
) -> Callable[[str], tuple[dict[str, Any], list[tuple[list[str], Finished]]]]:
    """`typed_page("docs/page.md")`: the page's Python run and its commands typed, as they follow; all of them end well.
    Returns the names that the Python made, and each command's arguments with what it left."""

    def type_it(page: str) -> tuple[dict[str, Any], list[tuple[list[str], Finished]]]:
        names: dict[str, Any] = {}
        typed = []
        for language, block in fenced(page, "python", "sh"):
            if language == "python":
                exec(block, names)
                continue
            for line in block.splitlines():
                program, *arguments = shlex.split(line)
                assert program == "semires"
                finished = semires(*arguments)
                assert finished.code == 0, (line, finished)
                typed.append((arguments, finished))
        return names, typed

    return type_it
