from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import CLIPSegForImageSegmentation

from semires.stages.data.refer import ReferDataset
from semires.stages.train.config import TrainConfig
from semires.stages.train.models.build import build_model, image_size_of, weights_folder
from semires.stages.train.models.clipseg import ClipSeg
from semires.stages.train.models.interface import ResModel
from semires.stages.train.run import train_run
from semires.stages.train.run_folder import RunFolder


@pytest.fixture
def nano() -> ClipSeg:
    torch.manual_seed(0)
    model = build_model("clipseg-nano", pretrained=True)
    assert isinstance(model, ClipSeg)
    return model


def grad_names(model: ClipSeg) -> set[str]:
    return {name for name, parameter in model.named_parameters() if parameter.grad is not None}


def backward(model: ClipSeg) -> None:
    ids, mask = model.tokenizer(["small red house left", "ball"])
    model(torch.randn(2, 3, 96, 96), ids, mask)[:, 1].mean().backward()


def test_build_model__clipseg_nano_has_the_shipped_tower(nano: ClipSeg) -> None:
    assert nano.training
    assert (nano.image_size, image_size_of("clipseg-nano")) == (96, 96)
    assert build_model("clipseg-nano", pretrained=False, image_size=64).image_size == 64
    shipped = load_file(weights_folder() / "clipseg_nano_vision.safetensors")
    own = nano.vision.state_dict()
    assert own.keys() == shipped.keys()
    assert all(torch.equal(own[name], tensor) for name, tensor in shipped.items())


def test_clipseg_nano__is_transformers_clipseg(nano: ClipSeg) -> None:
    assert isinstance(nano.network, CLIPSegForImageSegmentation)
    ids, mask = nano.tokenizer(["small red house left", "ball"])
    images = torch.randn(2, 3, 96, 96)
    with torch.no_grad():
        expected = nano.network(input_ids=ids, attention_mask=mask, pixel_values=images).logits
        logits = nano.eval()(images, ids, mask)
    torch.testing.assert_close(logits[:, 1] - logits[:, 0], expected)
    # The text is read off its last token, whatever the padding.
    words = nano.network.clip.get_text_features(ids, attention_mask=mask)
    last = words.last_hidden_state[[0, 1], mask.sum(dim=1) - 1]
    torch.testing.assert_close(words.pooler_output, nano.network.clip.text_projection(last))


def test_clipseg_nano__text_vision_and_decoder_learn(nano: ClipSeg) -> None:
    groups = nano.parameter_groups(weight_decay=0.1, learning_rate=1e-3, trunk_rate=0.25)
    assert [(group["lr"], group["weight_decay"]) for group in groups] == [
        *((2.5e-4, 0.1), (2.5e-4, 0.0), (1e-3, 0.1), (1e-3, 0.0))
    ]
    grouped = [parameter for group in groups for parameter in group["params"]]
    assert len({id(parameter) for parameter in grouped}) == len(grouped)
    backward(nano)
    names = grad_names(nano)
    assert {id(parameter) for parameter in grouped} == {id(p) for n, p in nano.named_parameters() if n in names}
    parts = ("decoder.film_mul", "clip.text_projection", "clip.text_model.embeddings", "clip.vision_model.embeddings")
    assert all(any(name.startswith(f"network.{part}") for name in names) for part in parts)


def test_clipseg_nano__a_trunk_rate_of_zero_freezes_the_vision_encoder(nano: ClipSeg) -> None:
    groups = nano.parameter_groups(weight_decay=0.1, learning_rate=1e-3, trunk_rate=0)
    assert len(groups) == 2
    backward(nano)
    names = grad_names(nano)
    assert not any(".vision_model." in name for name in names)
    assert any(".text_model." in name for name in names)
    # Asked for again, it learns again.
    assert len(nano.parameter_groups(weight_decay=0.1, learning_rate=1e-3)) == 4
    assert nano.vision.embeddings.patch_embedding.weight.requires_grad


def test_clipseg_nano__trains_in_both_phases(
    tmp_path: Path, refshapes: ReferDataset, viewed_store: Path, nano_config: Callable[..., TrainConfig]
) -> None:
    config = nano_config(method="semires", model="clipseg-nano", num_evaluations=1)
    train_run(config, refshapes, tmp_path / "run", torch.device("cpu"), store=viewed_store)
    folder = RunFolder(tmp_path / "run")
    assert folder.read_metrics()[-1]["phase"] == "mutual"
    assert not (folder.path / "model").exists()  # all that it needs is in the package
    _, model = folder.load_model()
    start = build_model("clipseg-nano", pretrained=True).state_dict()
    moved = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, start[name])}
    assert any(".text_model." in name for name in moved)
    model.save_pretrained(tmp_path / "model")
    found = ResModel.from_pretrained(tmp_path / "model")
    assert isinstance(found, ClipSeg)
    assert found.trains_clip
    ids, mask = found.tokenizer(["small red house left"])
    images = torch.randn(1, 3, 96, 96)
    assert torch.equal(found(images, ids, mask), model(images, ids, mask))
