from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import CLIPSegForImageSegmentation

from semires.stages.data.errors import InputError
from semires.stages.data.refer import ReferDataset
from semires.stages.train.config import TrainConfig
from semires.stages.train.models.build import build_model, image_size_of
from semires.stages.train.run import train_run
from semires.stages.train.run_folder import RunFolder


def test_build_model__clipseg_from_a_folder(clipseg: Path) -> None:
    model = build_model("clipseg", pretrained=True, clipseg=str(clipseg))
    assert model.image_size == 32
    assert image_size_of("clipseg", clipseg=str(clipseg)) == 32
    theirs = CLIPSegForImageSegmentation.from_pretrained(clipseg)
    ids, mask = model.tokenizer(["a bad cafe", "egg"])
    assert ids.shape == (2, 12)
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = theirs(input_ids=ids, attention_mask=mask, pixel_values=images).logits
        logits = model.eval()(images, ids, mask)
        torch.testing.assert_close(logits[:, 1] - logits[:, 0], expected)
        # A side that is no whole number of patches.
        assert model(torch.zeros(1, 3, 42, 42), ids[:1], mask[:1]).shape == (1, 2, 42, 42)
    names = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert names
    assert all(name.startswith("network.decoder.") for name in names)
    groups = model.parameter_groups(weight_decay=0.1, learning_rate=1e-3)
    assert sum(len(group["params"]) for group in groups) == len(names)


def test_build_model__clipseg_without_its_weights(clipseg: Path) -> None:
    (clipseg / "model.safetensors").unlink()
    assert build_model("clipseg", pretrained=False, clipseg=str(clipseg), image_size=64).image_size == 64
    with pytest.raises(InputError, match="expected a CLIPSeg"):
        build_model("clipseg", pretrained=True, clipseg=str(clipseg))


def test_clipseg__trains_in_both_phases(
    clipseg: Path, tmp_path: Path, refshapes: ReferDataset, viewed_store: Path, nano_config: Callable[..., TrainConfig]
) -> None:
    config = nano_config(
        method="semires", model="clipseg", clipseg=str(clipseg), image_size=96, mutual_epochs=2, num_evaluations=1
    )
    result = train_run(config, refshapes, tmp_path / "run", torch.device("cpu"), store=viewed_store)
    assert result["steps"] >= 10
    folder = RunFolder(tmp_path / "run")
    mutual, burn_in = folder.read_metrics()[-1], RunFolder(tmp_path / "run" / "burn-in").read_metrics()[-1]
    assert (mutual["phase"], burn_in["phase"]) == ("mutual", "burn-in")
    _, model = folder.load_model()
    start = build_model("clipseg", pretrained=True, clipseg=str(clipseg)).state_dict()
    moved = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, start[name])}
    assert moved
    assert all(name.startswith("network.decoder.") for name in moved)
    # The run has kept what it needs of the folder.
    clipseg.rename(tmp_path / "elsewhere")
    assert RunFolder(tmp_path / "run" / "burn-in").load_model()[1].tokenizer.max_tokens == 12
    torch.testing.assert_close(folder.load_model()[1].state_dict(), model.state_dict(), rtol=0, atol=0)
