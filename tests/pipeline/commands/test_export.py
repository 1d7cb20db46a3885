import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from semires.stages.train.models import export as export_module
from semires.stages.train.models.export import Parity
from semires.stages.train.models.factory import model_of_factory

Semires = Callable[..., Any]
Refused = Callable[..., str]

MODEL = """
import torch
from semires.stages.train.models import ResModel, Tokenizer
from semires.stages.train.models.build import weights_folder

class Model(ResModel):
    def __init__(self):
        super().__init__()
        self.image_size = 32
        self.tokenizer = Tokenizer.from_vocab(weights_folder() / "nano_vocab.txt")
        self.classify = torch.nn.Conv2d(3, 2, 3, padding=1)

    def forward(self, images, input_ids, attention_mask):
        return self.classify(images) + (input_ids * attention_mask).float().mean(dim=1)[:, None, None, None]

def build(pretrained):
    return Model()
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A model folder of a small network, whose module lies in the working directory."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "exported_model.py").write_text(MODEL)
    model_of_factory("exported_model:build", pretrained=True).save_pretrained(tmp_path / "[folder]")
    return tmp_path / "[folder]"


def test_export__writes_a_program_and_compares_it(semires: Semires, folder: Path, tmp_path: Path) -> None:
    finished = semires("export", folder, "-o", "out/model.pt2")
    assert finished.code == 0, finished.err
    assert "1 x 3 x 32 x 32" in finished.out
    assert "100.0000%" in finished.out
    assert "written: out/model.pt2" in finished.out
    program = torch.export.load(tmp_path / "out" / "model.pt2").module()
    logits = program(torch.zeros(1, 3, 50, 40), torch.zeros(1, 20).long(), torch.ones(1, 20).long())
    assert logits.shape == (1, 2, 50, 40)
    finished = semires("export", folder, "--format", "onnx")
    assert finished.code == 0, finished.err
    assert "written: reports/[folder].onnx" in finished.out
    assert (tmp_path / "reports" / "[folder].onnx").stat().st_size > 0


def test_export__a_program_that_differs_is_an_error(
    semires: Semires, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        export_module, "_compare", lambda model, program, shape: Parity(shape=shape, difference=0.3, agreement=0.9)
    )
    finished = semires("export", folder, "-o", "model.pt2")
    assert finished.code == 1
    assert finished.err.splitlines() == [
        "error: expected logits within 0.0001 of the model's, found 3.0e-01; nothing is kept"
    ]
    assert not (tmp_path / "model.pt2").exists()


def test_export__refused(semires: Semires, assert_refused: Refused, folder: Path) -> None:
    assert_refused(semires("export", folder, "--format", "tensorrt"), "--format: expected one of torch-export, onnx")
    assert_refused(semires("export", "nowhere"), "expected the folder of a run or of a model", "nowhere")


def test_export__onnx_without_its_packages(
    semires: Semires, assert_refused: Refused, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    assert_refused(semires("export", folder, "--format", "onnx"), "onnxscript", "pip install 'semires[onnx]'")
