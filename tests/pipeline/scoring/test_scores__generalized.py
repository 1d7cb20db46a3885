import dataclasses
import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from semires.pipeline.paths import Paths
from semires.pipeline.reporting.scores_table import scores_notes
from semires.pipeline.scoring.scores import evaluate_run
from semires.stages.data.masks import resize_mask
from semires.stages.data.refer import ReferDataset
from semires.stages.train.config import TrainConfig
from semires.stages.train.evaluation import measure
from semires.stages.train.generalized_metrics import generalized_scores
from semires.stages.train.reading.samples import RefSamples
from semires.stages.train.run_folder import RunFolder


@pytest.fixture
def grefcoco(write_refer: Callable[..., Any]) -> Path:
    """A data root whose val has a ref of two objects and one of none."""
    fake = write_refer("grefcoco", num_train=2)
    path = fake.root / "grefcoco/refs(unc).p"
    refs = pickle.loads(path.read_bytes())
    val = [record for record in refs if record["split"] == "val"]
    val[0]["ann_id"] = [val[0]["ann_id"], val[1]["ann_id"]]
    val[2]["ann_id"] = [-1]
    path.write_bytes(pickle.dumps(refs, protocol=2))
    return Path(fake.root)


def test_evaluate_run__several_objects_or_none(grefcoco: Path, tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    config = TrainConfig(split="grefcoco", model="nano", method="baseline", labeled=0.5, precision="fp32")
    folder.start(config, [1000])
    torch.manual_seed(0)
    folder.save_best(config.build_model(pretrained=False).state_dict())

    found = evaluate_run(folder.path, Paths(data=grefcoco), torch.device("cpu"), lambda *rest: None)

    dataset, (_, model) = ReferDataset.load(grefcoco, "grefcoco"), folder.load_model()
    samples = RefSamples(dataset, dataset.refs_of("val"), model.tokenizer, model.image_size)
    counts = measure(model, samples, torch.device("cpu")).counts
    areas = [resize_mask(dataset.mask(ref), model.image_size).sum() for ref in dataset.refs_of("val")]
    per_ref = [len(ref.expressions) for ref in dataset.refs_of("val")]
    assert counts.areas.tolist() == np.repeat(areas, per_ref).tolist()
    no_target = torch.from_numpy(np.repeat([not ref.ann_ids for ref in dataset.refs_of("val")], per_ref))
    expected = generalized_scores(counts.intersections, counts.unions, counts.areas, no_target)
    assert int(no_target.sum()) > 0
    assert found.by_split["val"]["generalized"] == dataclasses.asdict(expected)
    assert json.dumps(found.by_split["val"]["generalized"])
    assert "generalized" not in found.by_split["testA"]
    notes = [note for note in scores_notes(found) if "gIoU" in note]
    assert len(notes) == 1
    assert notes[0].startswith(f"val: gIoU {expected.giou:.2f}, cIoU {expected.ciou:.2f}, N-acc ")
    assert notes[0].endswith(f"({int(no_target.sum())} of {len(no_target)} expressions mean nothing on the image)")
