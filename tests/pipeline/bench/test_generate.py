from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from semires.pipeline.bench import generate
from semires.pipeline.bench.contestants import sam2_original
from semires.pipeline.bench.generate import GenerateBenchConfig, bench_generate
from semires.pipeline.bench.inputs import random_sam
from semires.pipeline.bench.measures.report import Bench
from semires.stages.cache_sam.models.sam import LoadedSam
from semires.stages.cache_sam.models.tiny_sam import GENERATOR_SETTINGS, build_tiny_sam
from semires.stages.data.errors import InputError
from semires.stages.data.images import load_image

FIGURES = ["images/s", "ratio to segment-anything", "masks an image", "equal masks, %", "best IoU, mean"]
FIGURES += ["peak memory, MB", *(f"{phase}, ms" for phase in ("load", "encode", "decode", "select", "pack", "commit"))]


@pytest.fixture(autouse=True)
def no_other_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Starting processes takes seconds; test_generators.py has the real thing."""
    monkeypatch.setattr(generate, "resident_memory", lambda *args: 7.0)


def figures(bench: Bench, contestant: str) -> dict[str, float | None]:
    return {row["figure"]: row[contestant] for row in bench.rows}  # type: ignore[misc]


def test_bench_generate__tiny_sam_on_scenes() -> None:
    bench = bench_generate(GenerateBenchConfig(num_images=2, points_per_side=4, repeats=1))
    assert list(bench.rows[0]) == ["figure", "segment-anything", "semires, fp32"]
    assert [row["figure"] for row in bench.rows] == FIGURES
    ours, sams = figures(bench, "semires, fp32"), figures(bench, "segment-anything")
    assert all(value is not None and np.isfinite(value) and value > 0 for value in ours.values())
    assert [name for name, value in sams.items() if value is None] == ["load, ms", "pack, ms", "commit, ms"]
    assert sams["ratio to segment-anything"] == 1
    assert ours["masks an image"] == sams["masks an image"]
    assert ours["best IoU, mean"] == pytest.approx(1, abs=1e-3)
    notes = "\n".join(bench.notes)
    assert "2 images of 96x128, 4x4 points, on cpu" in notes
    assert "random weights" not in notes


def test_bench_generate__random_weights_on_photographs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(random_sam.sam_model_registry, "vit_b", build_tiny_sam)
    for name, shape in (("a.png", (40, 50, 3)), ("b.png", (50, 30, 3))):
        Image.fromarray(np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)).save(tmp_path / name)
    config = GenerateBenchConfig(sam="vit_b", images=tmp_path, points_per_side=5, repeats=1)
    bench = bench_generate(config)
    ours, sams = figures(bench, "semires, fp32"), figures(bench, "segment-anything")
    assert ours["masks an image"] == sams["masks an image"] >= 60  # type: ignore[operator]
    assert ours["best IoU, mean"] == pytest.approx(1, abs=1e-3)
    notes = "\n".join(bench.notes)
    assert "2 images of 40x50, 50x30" in notes
    assert "random weights: predicted IoU above" in notes


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    """A folder with one."""
    pixels = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    return tmp_path


@pytest.fixture
def as_small(monkeypatch: pytest.MonkeyPatch, small_sam2_config: Any) -> None:
    """`--sam sam2` draws the weights of a small one."""
    monkeypatch.setattr(generate, "random_sam2", partial(random_sam.random_sam2, config=small_sam2_config))


@pytest.mark.skipif(not sam2_original.is_installed(), reason=f"needs the package sam2: {sam2_original.INSTALL}")
@pytest.mark.filterwarnings("ignore:`torch.jit:FutureWarning", "ignore:`torch.jit:DeprecationWarning")
def test_bench_generate__sam2_beside_its_own(as_small: None, photographs: Path) -> None:
    bench = bench_generate(GenerateBenchConfig(sam="sam2", images=photographs, points_per_side=5, repeats=1))
    assert bench.title == "Mask generation: SAM 2.1 hiera-tiny"
    assert [row["figure"] for row in bench.rows] == [name.replace("segment-anything", "sam2") for name in FIGURES]
    ours, sam2s = figures(bench, "semires, fp32"), figures(bench, "sam2")
    assert ours["masks an image"] == sam2s["masks an image"] >= 60  # type: ignore[operator]
    assert ours["best IoU, mean"] == pytest.approx(1, abs=1e-3)
    assert [name for name, value in sam2s.items() if value is None] == ["load, ms", "pack, ms", "commit, ms"]


def test_bench_generate__sam2_alone(as_small: None, photographs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sam2_original, "is_installed", lambda: False)
    bench = bench_generate(GenerateBenchConfig(sam="sam2", images=photographs, points_per_side=5, repeats=1))
    assert list(bench.rows[0]) == ["figure", "semires, fp32"]
    assert figures(bench, "semires, fp32")["masks an image"] >= 60  # type: ignore[operator]
    assert figures(bench, "semires, fp32")["equal masks, %"] is None
    assert any("the package sam2 is not installed (SAM2_BUILD_CUDA=0 pip install" in note for note in bench.notes)


def test_bench_generate__lower_precision_compiled_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    sam = build_tiny_sam()
    sam.image_encoder.blocks = sam.image_encoder.blocks[:1]  # most CPUs compute bf16 slowly
    monkeypatch.setattr(
        generate, "load_sam", lambda *args: LoadedSam(name="tiny", sha256="0", sam=sam, settings=GENERATOR_SETTINGS)
    )
    monkeypatch.setattr(torch, "compile", lambda function: function)
    config = GenerateBenchConfig(num_images=1, points_per_side=1, repeats=1, precision="bf16", compile=True)
    bench = bench_generate(config)
    assert list(bench.rows[0])[2:] == ["semires, fp32", "semires, bf16", "semires, bf16, compiled"]
    assert any(note.startswith("semires, bf16, compiled: compiled in ") for note in bench.notes)
    assert figures(bench, "semires, bf16")["peak memory, MB"] == 7
    assert figures(bench, "semires, bf16, compiled")["peak memory, MB"] is None


def test_bench_generate__scenes_for_other_sams_are_as_large_as_photographs(tmp_path: Path) -> None:
    (path,) = generate._image_files(GenerateBenchConfig(sam="vit_b", num_images=1), tmp_path)
    assert load_image(path).shape == (480, 640, 3)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"precision": "int8"}, "--precision: expected one of"),
        ({"sam": "sam2", "checkpoint": Path("some.pt")}, "--sam-checkpoint: expected none, found some.pt"),
        ({"sam": "nonsense"}, "--sam: expected one of"),
        ({"images": Path("nowhere")}, "--images: expected a folder"),
    ],
)
def test_bench_generate__wrong(changes: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        bench_generate(GenerateBenchConfig(num_images=1, **changes))  # type: ignore[arg-type]
