import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

from semires.pipeline.datasets import problems_line
from semires.pipeline.paths import Paths
from semires.stages.data.refer import ReferDataset


def test_problems_line__what_training_skips(tmp_path: Path, write_refer: Callable[..., Any]) -> None:
    fake = write_refer("grefcoco", num_train=3)
    path = fake.root / "grefcoco/refs(unc).p"
    refs = pickle.loads(path.read_bytes())
    both = [refs[0]["ann_id"], refs[1]["ann_id"]]
    refs[0]["ann_id"], refs[2]["ann_id"] = both, [-1]
    path.write_bytes(pickle.dumps(refs, protocol=2))
    instances = json.loads((fake.root / "grefcoco/instances.json").read_text())
    assert len(instances["annotations"]) == len(refs)
    dataset = ReferDataset.load(fake.root, "grefcoco")
    line = problems_line(dataset, Paths(data=fake.root))
    assert line == "grefcoco: training skips 2 train refs that mean several objects or none"
    assert len(dataset.refs_of("train")) == 4
