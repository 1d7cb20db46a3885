"""`semires convert` and what its folders are good for, from the outside."""

import argparse
import dataclasses
import json
import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor
from transformers import BertConfig, BertModel, SwinModel

from semires.pipeline import datasets
from semires.stages.data.refshapes.writer import RefShapesConfig
from semires.stages.train.config import TrainConfig
from semires.stages.train.models.checkpoints.swin import resize_table
from semires.stages.train.models.lavt import Lavt
from semires.stages.train.models.lavt.config import LAVT_NANO, LAVT_SIZES
from semires.stages.train.models.tokenization import build_vocab
from semires.stages.train.run_folder import RunFolder

Semires = Callable[..., Any]
Refused = Callable[..., str]
BERT = "text_encoder."


@pytest.fixture
def bert(tmp_path: Path) -> Path:
    """A BERT folder of the sizes of `lavt_tensors`."""
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 32}
    BertModel(BertConfig(vocab_size=200, max_position_embeddings=32, **sizes)).save_pretrained(tmp_path / "bert")
    (tmp_path / "bert" / "vocab.txt").write_text("\n".join(build_vocab(["left", "girl"])) + "\n")
    return tmp_path / "bert"


@pytest.fixture
def lavt_file(lavt_tensors: Callable[..., dict[str, Tensor]], tmp_path: Path) -> Path:
    """A checkpoint as LAVT's training writes it."""
    tensors = lavt_tensors()
    content = {
        "model": {name: tensor for name, tensor in tensors.items() if not name.startswith(BERT)},
        "bert_model": {n.removeprefix(BERT): tensor for n, tensor in tensors.items() if n.startswith(BERT)},
        "optimizer": {},
        "epoch": 38,
        "args": argparse.Namespace(dataset="refcoco", splitBy="unc", mha="", img_size=64),
    }
    torch.save(content, tmp_path / "model_best_refcoco.pth")
    return tmp_path / "model_best_refcoco.pth"


@pytest.fixture
def swin_file(swin_tensors: Callable[..., dict[str, Tensor]], tmp_path: Path) -> Path:
    torch.save({"model": swin_tensors()}, tmp_path / "swin.pth")
    return tmp_path / "swin.pth"


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A finished run with random weights."""
    config = TrainConfig(split="refshapes", model="nano", method="supervised", labeled=0.25)
    folder = RunFolder(tmp_path / "run")
    folder.start(config, [1, 2])
    torch.manual_seed(0)
    folder.save_best(config.build_model(pretrained=False).state_dict())
    folder.finish({"val_oiou": 43.21, "steps": 100, "seconds": 12.5})
    return folder.path


def weights_of(path: Path) -> dict[str, Tensor]:
    """All tensors of a LAVT checkpoint by lavt_one's names."""
    content = torch.load(path, weights_only=True)
    return content["model"] | {BERT + name: tensor for name, tensor in content.get("bert_model", {}).items()}


def assert_equal(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())


def test_convert__lavt_in_and_out(
    semires: Semires, lavt_file: Path, bert: Path, lavt_tensors: Callable[..., dict[str, Tensor]], tmp_path: Path
) -> None:
    finished = semires("convert", lavt_file, "-o", "[red]model", "--bert", bert)
    assert (finished.code, finished.err) == (0, "")
    assert "window 7, fusion heads 1-1-1-1, images 64 x 64" in finished.out
    assert "the weights do not tell the fusion's heads" in finished.out
    assert "not kept: optimizer\n" in finished.out
    assert "written: [red]model; next: semires predict" in finished.out
    model = Lavt.from_pretrained("[red]model")
    assert model.config.text_heads == 4
    config = json.loads((tmp_path / "[red]model" / "config.json").read_text())
    assert config["tokenizer"]["keep_sep"] is False
    assert (config["origin"]["layout"], config["origin"]["epoch"]) == ("lavt", 38)
    card = (tmp_path / "[red]model" / "README.md").read_text()
    for text in ("model_best_refcoco.pth", "sha256", "after epoch 38", "dataset refcoco, splitBy unc", "Not measured"):
        assert text in card
    for source in ("[red]model", lavt_file):
        for layout in ("lavt", "lavt-one"):
            finished = semires("convert", source, "-o", f"back/{layout}.pth", "--to", layout)
            assert (finished.code, finished.err) == (0, "")
            assert "of this size" in finished.out
            assert "res_gate" not in finished.out
            assert_equal(weights_of(tmp_path / "back" / f"{layout}.pth"), lavt_tensors())
    assert semires("convert", "back/lavt-one.pth", "-o", "again", "--bert", bert, "--mha", "4-4-4-4").code == 0
    assert Lavt.from_pretrained("again").config.fusion_heads == (4, 4, 4, 4)
    assert semires("convert", "again", "-o", "[red]model").code == 0
    assert Lavt.from_pretrained("[red]model").config.fusion_heads == (4, 4, 4, 4)


def test_convert__a_run(semires: Semires, run: Path, tmp_path: Path) -> None:
    assert semires("convert", run, "-o", "model").code == 0
    model, expected = Lavt.from_pretrained("model"), RunFolder(run).load_model()[1]
    assert_equal(model.state_dict(), expected.state_dict())
    card = (tmp_path / "model" / "README.md").read_text()
    assert "LAVT-nano, RefShapes, Supervised" in card
    assert "43.21% oIoU on val" in card
    finished = semires("convert", run, "-o", "run.pth", "--to", "lavt")
    assert finished.code == 0
    assert "the last stage's res_gate is zeros" in finished.out
    assert "LAVT's code has no model of this size" in finished.out
    assert not weights_of(tmp_path / "run.pth")["backbone.layers.3.res_gate.0.weight"].any()
    assert list(torch.load(tmp_path / "run.pth", weights_only=True)) == ["model", "bert_model"]


def test_predict__from_a_model_folder_in_a_new_process(semires: Semires, run: Path, tmp_path: Path) -> None:
    Image.new("RGB", (70, 50), "green").save(tmp_path / "one.png")
    assert semires("convert", run, "-o", "model").code == 0
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "no_cache"), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-W", "error::UserWarning", "-m", "semires.pipeline.cli"]
    finished = subprocess.run(
        [*command, "predict", "one.png", "left circle", "--model", "model", "--output", "out"],
        **{"capture_output": True, "text": True, "cwd": tmp_path, "env": environment, "check": True},
    )
    assert finished.stderr == ""
    assert semires("predict", "one.png", "left circle", "--run", run, "--output", "expected").code == 0
    for name in ("one_mask.png", "one_overlay.png"):
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "expected" / name).read_bytes()


def test_predict__run_or_model(semires: Semires, assert_refused: Refused, run: Path, tmp_path: Path) -> None:
    Image.new("RGB", (70, 50)).save(tmp_path / "one.png")
    assert_refused(semires("predict", "one.png", "left", "--run", run, "--model", run), "found both")
    assert_refused(semires("predict", "one.png", "left", "--model", run), "found another program's config.json")
    assert_refused(semires("predict", "one.png", "left", "--model", "./none"), "found neither at ./none")


def test_convert__swin(
    semires: Semires, swin_file: Path, swin_tensors: Callable[..., dict[str, Tensor]], tmp_path: Path
) -> None:
    finished = semires("convert", swin_file, "-o", "swin")
    assert finished.code == 0
    assert "Swin with window 7" in finished.out
    assert "next: semires train --swin swin" in finished.out
    assert semires("convert", "swin", "-o", "swin12", "--window", 12).code == 0
    model = SwinModel.from_pretrained(tmp_path / "swin12", add_pooling_layer=False)
    table = swin_tensors()["layers.0.blocks.0.attn.relative_position_bias_table"]
    own = model.encoder.layers[0].blocks[0].attention.relative_position_bias.relative_position_bias_table
    assert torch.equal(own, resize_table(table, 12))
    assert semires("convert", swin_file, "-o", "swin12", "--window", 12).code == 0


def test_train__from_microsofts_file(
    semires: Semires,
    swin_file: Path,
    bert: Path,
    swin_tensors: Callable[..., dict[str, Tensor]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A small LAVT on the Swin of a .pth file, its windows smaller than the file's."""
    size = dataclasses.replace(
        LAVT_NANO,
        image_size=40,
        swin_embed_dim=8,
        text_hidden=16,
        text_heads=4,
        text_intermediate=32,
        vocab_size=200,
        decoder_width=8,
    )
    monkeypatch.setitem(LAVT_SIZES, "tiny", size)
    monkeypatch.setattr(datasets, "REFSHAPES", RefShapesConfig(num_train=16, num_val=4, num_test=3))
    arguments = ("train", "--method", "supervised", "--model", "tiny", "--labeled", 0.25, "--burn-in-epochs", 1)
    arguments += ("--split", "refshapes", "--device", "cpu", "--learning-rate", 0, "--name", "mine", "--bert", bert)
    finished = semires(*arguments, "--swin", swin_file)
    assert finished.code == 0, finished.err
    best = load_file(tmp_path / "runs" / "mine" / "best.safetensors")
    at = "visual.layers.1.blocks.0.attention"
    table = swin_tensors()["layers.1.blocks.0.attn.relative_position_bias_table"]
    found = best[f"{at}.relative_position_bias.relative_position_bias_table"]
    assert torch.equal(found, resize_table(table, size.swin_window))
    assert torch.equal(best[f"{at}.o_proj.weight"], swin_tensors()["layers.1.blocks.0.attn.proj.weight"])
    assert semires("convert", "runs/mine", "-o", "model").code == 0


BROKEN = ("pickle", "cut", "sam", "vit", "text", "empty folder", "absent", "unknown key", "missing key", "misshapen")


@pytest.fixture
def broken(
    tmp_path: Path, lavt_file: Path, lavt_tensors: Callable[..., dict[str, Tensor]]
) -> Callable[[str], tuple[Path, str]]:
    """Write a bad input; returns its path and what the error says of it."""
    path = tmp_path / "bad.pth"

    def save(content: Any, message: str) -> tuple[Path, str]:
        torch.save(content, path)
        return path, message

    def write(kind: str) -> tuple[Path, str]:
        zeros, tensors = torch.zeros(1), lavt_tensors()
        if kind == "pickle":
            path.write_bytes(pickle.dumps(Run(tmp_path / "ran"), protocol=2))
            return path, f"the Python object {os.system.__module__}.system, which was not run"
        if kind == "cut":
            path.write_bytes(lavt_file.read_bytes()[:5000])
            return path, "found a damaged or other file"
        if kind == "text":
            path.write_text("epoch 1 of 40\n" * 20)
            return path, "found a damaged or other file"
        if kind == "sam":
            return save({"image_encoder.pos_embed": zeros}, "another network (image_encoder.pos_embed)")
        if kind == "vit":
            return save({"model": {"cls_token": zeros, "patch_embed.proj.weight": zeros}}, "another network (cls_token")
        if kind == "empty folder":
            (tmp_path / "empty").mkdir()
            return tmp_path / "empty", "expected a checkpoint file, a run, a model folder"
        if kind == "absent":
            return tmp_path / "absent.pth", "found none at"
        if kind == "unknown key":
            return save(tensors | {"backbone.extra": zeros}, "1 unknown (backbone.extra)")
        if kind == "missing key":
            del tensors["backbone.norm2.bias"]
            return save(tensors, "1 missing (backbone.norm2.bias)")
        return save(tensors | {"backbone.norm2.bias": zeros}, "1 of another shape or type (backbone.norm2.bias")

    return write


class Run:
    """A pickle of this would run a command."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (f"touch {self.target}",)


@pytest.mark.parametrize("to", ["folder", "lavt"])
@pytest.mark.parametrize("kind", BROKEN)
def test_convert__bad_input_is_one_line(
    semires: Semires,
    assert_refused: Refused,
    broken: Callable[[str], tuple[Path, str]],
    bert: Path,
    tmp_path: Path,
    kind: str,
    to: str,
) -> None:
    path, message = broken(kind)
    options = ("--bert", bert) if to == "folder" and kind not in ("empty folder", "absent") else ()
    assert_refused(semires("convert", path, "-o", "new.pth", "--to", to, *options), message, str(path))
    assert not (tmp_path / "new.pth").exists()
    assert not (tmp_path / "ran").exists()


def test_convert__options_that_do_not_fit(
    semires: Semires, assert_refused: Refused, run: Path, lavt_file: Path, swin_file: Path, bert: Path, tmp_path: Path
) -> None:
    for arguments, message in (
        ((run, "-o", "new", "--to", "onnx"), "--to: expected one of folder, lavt, lavt-one, found 'onnx'"),
        ((run, "-o", "new", "--bert", bert), "--bert: expected a checkpoint file of LAVT or SemiRES to convert"),
        ((swin_file, "-o", "new", "--mha", "4-4-4-4"), "--mha: expected a checkpoint file of LAVT"),
        ((lavt_file, "-o", "new", "--mha", "4,4"), "--mha: expected the heads of 4 stages such as 4-4-4-4"),
        ((lavt_file, "-o", "new", "--mha", "3-3-3-3", "--bert", bert), "expected fusion_heads that divide"),
        ((lavt_file, "-o", "new", "--window", 12), "--window: expected a Swin to convert"),
        ((swin_file, "-o", "new", "--window", 0), "--window: expected 1 or more"),
        ((swin_file, "-o", "new.pth", "--to", "lavt"), "expected a checkpoint of LAVT or SemiRES, found one of Swin"),
        ((lavt_file, "-o", "new", "--to", "lavt"), "--output: expected a file name ending in .pth"),
        ((lavt_file, "-o", run, "--bert", bert), "with other files"),
        ((lavt_file, "-o", "new", "--bert", tmp_path / "empty"), "expected a BERT"),
    ):
        assert_refused(semires("convert", *arguments), message)
        assert not (tmp_path / "new").exists()
    (run / "result.json").unlink()
    assert_refused(semires("convert", run, "-o", "new"), "expected a finished run, found an unfinished one")


def test_convert__model_of_another_kind(
    semires: Semires, assert_refused: Refused, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "converted_own_model.py").write_text(
        "from torch import nn\n"
        "from semires.stages.train.models import ResModel, Tokenizer\n"
        "from semires.stages.train.models.build import weights_folder\n"
        "class Own(ResModel):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.image_size = 16\n"
        "        self.tokenizer = Tokenizer.from_vocab(weights_folder() / 'nano_vocab.txt')\n"
        "        self.classify = nn.Conv2d(3, 2, 1)\n"
        "    def forward(self, images, input_ids, attention_mask):\n"
        "        return self.classify(images)\n"
        "def build(pretrained):\n"
        "    return Own()\n"
    )
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.chdir(tmp_path)
    config = TrainConfig(split="refshapes", model="converted_own_model:build", method="supervised")
    folder = RunFolder(tmp_path / "own")
    folder.start(config, [1])
    folder.save_best(config.build_model(pretrained=False).state_dict())
    folder.finish({"val_oiou": 1.0, "steps": 1, "seconds": 1.0})
    assert_refused(semires("convert", "own", "-o", "own.pth", "--to", "lavt"), "expected a LAVT", "found a Own")
    assert semires("convert", "own", "-o", "model").code == 0
    assert_equal(load_file(tmp_path / "model" / "model.safetensors"), load_file(folder.path / "best.safetensors"))
    Image.new("RGB", (20, 20)).save(tmp_path / "one.png")
    assert semires("predict", "one.png", "left", "--model", "model").code == 0
