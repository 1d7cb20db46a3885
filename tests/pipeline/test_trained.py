from pathlib import Path

import pytest
import torch

from semires.pipeline.trained import is_run, open_trained
from semires.stages.data.errors import InputError
from semires.stages.train.config import TrainConfig
from semires.stages.train.run_folder import RunFolder


def test_open_trained__a_run_or_a_model(tmp_path: Path) -> None:
    config = TrainConfig(split="refshapes", model="nano", method="baseline", labeled=0.25)
    run = RunFolder(tmp_path / "run")
    run.start(config, [1])
    model = config.build_model(pretrained=False)
    run.save_best(model.state_dict())
    model.save_pretrained(tmp_path / "model")
    assert is_run(run.path)
    assert not is_run(tmp_path / "model")
    for folder in (run.path, tmp_path / "model"):
        opened = open_trained(folder)
        assert not opened.training
        for name, tensor in model.state_dict().items():
            assert torch.equal(opened.state_dict()[name], tensor)
    for path in (tmp_path, tmp_path / "absent", run.path / "config.json"):
        with pytest.raises(InputError, match="expected the folder of a run or of a model"):
            open_trained(path)
