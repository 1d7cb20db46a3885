import argparse
import os
import pickle
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from torch import nn

from semires.stages.data.errors import InputError
from semires.stages.train.models.checkpoints.reading import read_checkpoint


def parts(tensors):
    """The two state dicts of LAVT's usual layout."""
    bert = {n.removeprefix("text_encoder."): t for n, t in tensors.items() if n.startswith("text_encoder.")}
    return {n: t for n, t in tensors.items() if not n.startswith("text_encoder.")}, bert


def assert_same(found, expected):
    assert found.keys() == expected.keys()
    assert all(
        torch.equal(found[name], tensor) and found[name].dtype == tensor.dtype for name, tensor in expected.items()
    )


@pytest.mark.parametrize("parallel", [False, True])
@pytest.mark.parametrize("legacy", [False, True])
def test_read_checkpoint__lavt_in_two_parts(lavt_tensors, tmp_path, parallel, legacy):
    tensors = lavt_tensors()
    model, bert = (
        OrderedDict((f"module.{name}" if parallel else name, tensor) for name, tensor in part.items())
        for part in parts(tensors)
    )
    content = {
        **{
            "model": model,
            "bert_model": bert,
            "epoch": 38,
            "args": argparse.Namespace(mha="4-4-4-4", lr=5e-5, amp=None),
        },
        "optimizer": torch.optim.AdamW([nn.Parameter(torch.ones(1))]).state_dict(),
        "lr_scheduler": {"base_lrs": [5e-5], "lr_lambdas": [None]},
    }
    torch.save(content, tmp_path / "best.pth", _use_new_zipfile_serialization=not legacy)
    found = read_checkpoint(tmp_path / "best.pth")
    assert (found.layout, found.epoch, found.arguments) == ("lavt", 38, {"mha": "4-4-4-4", "lr": 5e-5, "amp": None})
    assert found.unused == ("optimizer", "lr_scheduler")
    assert_same(found.tensors, tensors)


@pytest.mark.parametrize("parallel", [False, True])
@pytest.mark.parametrize("bare", [False, True])
def test_read_checkpoint__lavt_one(lavt_tensors, tmp_path, parallel, bare):
    tensors = lavt_tensors()
    state = {f"module.{name}" if parallel else name: tensor for name, tensor in tensors.items()}
    torch.save(state if bare else {"model": state, "bert_model": None}, tmp_path / "one.pth")
    found = read_checkpoint(tmp_path / "one.pth")
    assert (found.layout, found.epoch, found.arguments, found.unused) == ("lavt-one", None, {}, ())
    assert_same(found.tensors, tensors)


def test_read_checkpoint__swin(swin_tensors, tmp_path):
    torch.save({"model": swin_tensors()}, tmp_path / "swin.pth")
    found = read_checkpoint(str(tmp_path / "swin.pth"))
    assert found.layout == "swin"
    assert_same(found.tensors, swin_tensors())


class _Run:
    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self):
        return os.system, (f"touch {self.target}",)


@pytest.mark.parametrize("how", ["zip", "legacy", "pickle"])
def test_read_checkpoint__runs_nothing(tmp_path, how):
    target, path = tmp_path / "ran", tmp_path / "bad.pth"
    content = {"model": {"backbone.layers.0": torch.zeros(1)}, "args": _Run(target)}
    if how == "pickle":
        path.write_bytes(pickle.dumps({"model": _Run(target)}, protocol=2))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=how == "zip")
    with pytest.raises(
        InputError, match=rf"the Python object {os.system.__module__}\.system, which was not run"
    ) as caught:
        read_checkpoint(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not target.exists()


def test_read_checkpoint__pickle_of_another_protocol(tmp_path):
    (tmp_path / "new.pth").write_bytes(pickle.dumps({"model": _Run(tmp_path / "ran")}, protocol=5))
    with pytest.raises(InputError, match="found a damaged or other file") as caught:
        read_checkpoint(tmp_path / "new.pth")
    assert "weights_only" not in str(caught.value)
    assert not (tmp_path / "ran").exists()


def test_read_checkpoint__whole_module(tmp_path):
    torch.save(nn.Linear(2, 2), tmp_path / "module.pth")
    with pytest.raises(InputError, match=r"torch\.nn\.modules\.linear\.Linear, which was not run"):
        read_checkpoint(tmp_path / "module.pth")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([torch.zeros(1)], "found a list"),
        ({}, "found no weights"),
        ({"model": {}}, "found no weights"),
        ({"backbone.layers.0": 3}, r"1 entries that are no tensors \(backbone\.layers\.0\)"),
        ({"image_encoder.pos_embed": torch.zeros(1)}, r"1 tensors of another network \(image_encoder\.pos_embed\)"),
        ({"model": {"cls_token": torch.zeros(1), "patch_embed.proj.weight": torch.zeros(1)}}, "2 tensors of another"),
        (
            {
                "model": {"backbone.layers.0": torch.zeros(1), "text_encoder.x": torch.zeros(1)},
                "bert_model": {"x": torch.zeros(1)},
            },
            "without BERT beside",
        ),
    ],
)
def test_read_checkpoint__other_content(tmp_path, content, message):
    torch.save(content, tmp_path / "other.pth")
    with pytest.raises(InputError, match=message) as caught:
        read_checkpoint(tmp_path / "other.pth")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.999])
def test_read_checkpoint__cut_off(lavt_tensors, tmp_path, legacy, share):
    path = tmp_path / "cut.pth"
    torch.save({"model": lavt_tensors()}, path, _use_new_zipfile_serialization=not legacy)
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(InputError, match="found a damaged or other file") as caught:
        read_checkpoint(path)
    assert "\n" not in str(caught.value)


def test_read_checkpoint__no_checkpoint_at_all(tmp_path):
    (tmp_path / "notes.txt").write_text("a text file\n" * 100)
    with pytest.raises(InputError, match="found a damaged or other file"):
        read_checkpoint(tmp_path / "notes.txt")
    for path in (tmp_path, tmp_path / "absent.pth"):
        with pytest.raises(InputError, match="found no file"):
            read_checkpoint(path)
