import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console

from semires.pipeline.paths import Paths
from semires.pipeline.scoring.counts import PixelCounts
from semires.pipeline.study import comparison
from semires.pipeline.study.comparison import compare_runs, comparison_table
from semires.stages.data.errors import InputError
from semires.stages.train.config import TrainConfig
from semires.stages.train.run_folder import RunFolder

CPU = torch.device("cpu")
MakeRun = Callable[..., Path]


def ignore(what: str, done: int, total: int, note: str = "") -> None:
    pass


@pytest.fixture
def make_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MakeRun:
    """Finished runs whose every expression has the IoU that was asked for."""
    ious: dict[Path, float] = {}

    def counts(run: Path, *rest: Any) -> dict[str, PixelCounts]:
        unions = np.array([100, 200, 300])
        of_split = PixelCounts(image_ids=np.arange(3), intersections=(unions * ious[run]).astype(int), unions=unions)
        return dict.fromkeys(("val", "testA", "testB"), of_split)

    def make(name: str, iou: float = 0.5, *, labeled: list[int] | None = None, **changes: Any) -> Path:
        folder = RunFolder(tmp_path / name)
        folder.start(TrainConfig(**({"split": "refshapes", "model": "nano"} | changes)), labeled or [1])
        folder.finish({})
        ious[folder.path] = iou
        return folder.path

    monkeypatch.setattr(comparison, "pixel_counts", counts)
    monkeypatch.setattr(comparison, "load_dataset", lambda *rest: None)
    return make


def test_compare_runs__each_pair_on_each_split(make_run: MakeRun) -> None:
    ours = [make_run(f"ours{seed}", 0.6 + 0.1 * seed, method="semires-cc", seed=seed) for seed in range(2)]
    theirs = [make_run(f"theirs{seed}", 0.5, seed=seed) for seed in range(2)]
    found = compare_runs(ours, theirs, Paths(data=Path("data")), CPU, ignore)
    assert list(found.by_split) == ["val", "testA", "testB"]
    for difference in found.by_split.values():
        assert difference.ours == pytest.approx((60.0, 70.0))
        assert difference.theirs == pytest.approx((50.0, 50.0))
        assert (difference.low, difference.high) == pytest.approx((10.0, 20.0))  # seeds alone differ
    values = json.loads(json.dumps(found.to_dict()))
    assert values["runs"] == [str(run) for run in ours]
    assert values["by_split"]["val"]["mean"] == pytest.approx(15.0)
    console = Console(width=100, record=True, file=io.StringIO())
    console.print(comparison_table(found))
    line = next(line for line in console.export_text().splitlines() if "testB" in line)
    assert line.strip("│ ").replace("│", " ").split() == ["testB", "50.00", "65.00", "+15.00", "+10.00", "+20.00"]


def test_compare_runs__no_pairs(make_run: MakeRun, tmp_path: Path) -> None:
    run = make_run("one")
    for other, words in (
        (make_run("two", seed=3), "alike in seed, found 0 in .*one and 3 in .*two"),
        (make_run("three", split="refcoco", model="base"), "alike in split"),
        (make_run("four", labeled=[2]), "same labeled images"),
        (tmp_path / "nowhere", "found no .*nowhere"),
    ):
        with pytest.raises(InputError, match=words):
            compare_runs([run], [other], Paths(data=Path("data")), CPU, ignore)
    with pytest.raises(InputError, match="found 1 and 2: give --against once for each"):
        compare_runs([run], [run, run], Paths(data=Path("data")), CPU, ignore)
    unfinished = RunFolder(tmp_path / "unfinished")
    unfinished.start(TrainConfig(split="refshapes", model="nano"), [1])
    with pytest.raises(InputError, match=r"result\.json"):
        compare_runs([run], [unfinished.path], Paths(data=Path("data")), CPU, ignore)


def test_compare_runs__own_data_by_any_path(make_run: MakeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    one, other = (make_run(name, split=split) for name, split in (("1", "x/my.jsonl"), ("2", "./x/my.jsonl")))
    found = compare_runs([one], [other], Paths(data=Path("data")), CPU, ignore)
    assert set(found.by_split) == {"val", "testA", "testB"}  # what was measured: the file need not be here
    assert comparison_table(found).title == "oIoU on my.jsonl, per cent, 1 pairs of runs; intervals hold 95%"
    with pytest.raises(InputError, match="alike in split"):
        compare_runs([one], [make_run("3", split="my.jsonl")], Paths(data=Path("data")), CPU, ignore)
