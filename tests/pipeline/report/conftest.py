"""What tests of the report share: folders that look like runs, and a page of all that there can be on one."""

import base64
import dataclasses
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from semires.pipeline.report.content import (
    CellView,
    ChartView,
    ExampleView,
    FactView,
    FigureView,
    GalleryView,
    PageView,
    PictureView,
    RowView,
    RunView,
    SettingsView,
    StudyView,
    TableView,
)
from semires.pipeline.reporting.html.charts import Line, line_chart
from semires.pipeline.scoring.counts import SplitCounts
from semires.pipeline.scoring.kept import KeptSplit, write_kept
from semires.pipeline.scoring.scores import RunScores
from semires.pipeline.scoring.split_scores import split_scores
from semires.stages.train.config import TrainConfig
from semires.stages.train.run_folder import RunFolder

HOSTILE = "</script><script>alert(1)</script> {{7*7}} شجرة 🌳"


@pytest.fixture(scope="session")
def hostile() -> str:
    """A text that a user may have written."""
    return HOSTILE


@pytest.fixture
def write_run(tmp_path: Path) -> Callable[..., Path]:
    """Write a folder as `semires train` and `semires evaluate` leave it, without weights that are any: metrics of
    mutual learning, or of burn-in, that rise to `best`, which is its oIoU on val too; on testA it is half of that."""

    def write(
        name: str,
        *,
        best: float = 50.0,
        scores: bool = True,
        finished: bool = True,
        burn_in: Path | None = None,
        num_images: int = 20,
        **settings: Any,
    ) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        config = TrainConfig(**{"split": "refshapes", "model": "nano", "labeled": 0.05, **settings})
        is_mutual = config.method != "supervised"
        lines = []
        for number in (1, 2, 3):
            line: dict[str, Any] = {"phase": "mutual" if is_mutual else "burn-in", "step": 100 * number}
            line |= {"num_steps": 300, "seconds": 20.0 * number, "val": {"oiou": best - 3 + number}}
            if is_mutual:
                line |= {"label_iou_before": 0.4 + 0.01 * number, "label_iou_after": 0.42 + 0.02 * number}
                line |= {"matched": 0.6, "improved": 0.3, "worsened": 0.1}
            lines.append(line)
        (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
        (folder / "config.json").write_text(json.dumps(config.to_dict()), encoding="utf-8")
        (folder / "labeled_images.json").write_text("[1, 2]", encoding="utf-8")
        (folder / "best.safetensors").write_bytes(name.encode())
        if burn_in is not None:
            source = {"burn_in": {"location": str(burn_in), "sha256": None}}
            (folder / "sources.json").write_text(json.dumps(source), encoding="utf-8")
        if finished:
            result = {"val_oiou": best, "steps": 300, "num_steps": 300, "seconds": 61.5, "stopped_early": False}
            (folder / "result.json").write_text(json.dumps(result), encoding="utf-8")
            if scores:
                _write_scores(folder, config, best, num_images)
        return folder

    return write


def _write_scores(folder: Path, config: TrainConfig, best: float, num_images: int) -> None:
    weights_sha256 = RunFolder(folder).best_sha256()
    by: dict[str, Any] = {"weights_sha256": weights_sha256, "text": "sent", "image_size": 96, "precision": "fp32"}
    data = {"num_refs": 20, "num_images": num_images, "num_expressions": 20}
    data |= {"refs_sha256": "a" * 64, "content_sha256": "b" * 64}
    by_split, kept = {}, {}
    for split, oiou in (("val", best), ("testA", best / 2)):
        counts = SplitCounts(
            ref_ids=np.arange(num_images),
            image_ids=np.arange(num_images),
            intersections=np.full(num_images, round(10 * oiou)),
            unions=np.full(num_images, 1000),
            areas=np.full(num_images, 500),
        )
        by_split[split] = split_scores(counts.pixels, {}) | {"data": data}
        kept[split] = KeptSplit(measured_by=by | {"data": data}, num_cut=0, counts=counts)
    found = RunScores(split=config.split, method=config.method, labeled=config.labeled, by_split=by_split, **by)
    (folder / "scores.json").write_text(json.dumps(dataclasses.asdict(found)), encoding="utf-8")
    write_kept(folder / "counts.npz", kept)


def picture(color: str) -> str:
    """The address of a small picture."""
    file = io.BytesIO()
    Image.new("RGB", (96, 96), color).save(file, "PNG")
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"


@pytest.fixture(scope="session")
def example_page() -> PageView:
    """A page of one study with everything on it; what a user may have named is hostile."""
    table = TableView(
        name="scores",
        caption=f"RefShapes: oIoU in per cent {HOSTILE}",
        heading="row",
        columns=tuple(f"{share}% {split}" for share in (0.5, 1, 2, 5) for split in ("val", "testA", "testB")),
        rows=tuple(
            RowView(name=name, tone=f"tone-{number}", cells=(CellView(value="45.41", interval="43.10 to 47.20"),) * 12)
            for number, name in enumerate(("Supervised", HOSTILE))
        ),
    )
    chart = line_chart(
        [
            Line(name=name, tone=f"tone-{number}", points=((0, 40), (100, 45 + number)))
            for number, name in enumerate(("Supervised", HOSTILE))
        ],
        name="curves",
        title=f"Learning curves {HOSTILE}",
        description="Both rise.",
        x_label="steps",
        y_label="oIoU",
        size=(720, 380),
    )
    figure = FigureView(
        heading="Learning curves",
        charts=(ChartView(drawn=chart),),
        caption="oIoU on val.",
        legend=(("tone-0", "Supervised"), ("tone-1", HOSTILE)),
        table=dataclasses.replace(table, name="curve-numbers"),
    )
    outcomes, sizes = ("positive", "negative", "none"), ("small", "large")
    examples = tuple(
        ExampleView(
            expression=HOSTILE if number == 0 else f"small red house {number}",
            group="largest gains" if number < 6 else "random",
            outcome=outcomes[number % 3],
            size=sizes[number % 2],
            split="train",
            run="RefShapes, SemiRES",
            reasons=("s1 0.81 > 0.7",),
            about=("IoU 0.41 → 0.80",),
            pictures=tuple(
                PictureView(source=picture(color), alt=f"{what} of example {number}", caption=what)
                for what, color in (("image", "white"), ("label", "red"), ("refined label", "green"))
            ),
        )
        for number in range(12)
    )
    return PageView(
        title=f"Table 1 {HOSTILE}",
        about="24 finished runs on RefShapes",
        made="27 November 2026 by semires 0.1.0",
        summary=("RefShapes, 5% val: SemiRES is 3.2 points above Supervised.",),
        studies=(
            StudyView(
                name="study-0",
                title="Table 1",
                tables=(table,),
                remarks=("A remark",),
                figures=(figure,),
                not_measured=(f"refcoco: {HOSTILE}",),
            ),
        ),
        gallery=GalleryView(
            about="What refinement makes of labels.",
            examples=examples,
            filters=(("outcome", "outcome", outcomes), ("size", "object", sizes)),
        ),
        runs=(
            RunView(
                study="Table 1",
                split="RefShapes",
                row=HOSTILE,
                share="5%",
                seed="0",
                scores=("45.41",),
                best_step="300 of 300",
                duration="61 s",
                folder=f"/runs/{HOSTILE}",
            ),
        ),
        run_splits=("val",),
        facts=(FactView(name="data", value="900 refs"),),
        settings=(SettingsView(study="Table 1", differing=None, common=(("labeled_list", HOSTILE),)),),
        commands=("semires study table1",),
        notes=(f"a run: {HOSTILE}",),
    )
