from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from semires.stages.data.errors import InputError
from semires.stages.data.refer import ReferDataset
from semires.stages.train.config import TrainConfig
from semires.stages.train.models.factory import model_of_factory
from semires.stages.train.models.interface import ResModel
from semires.stages.train.run import train_run
from semires.stages.train.run_folder import RunFolder


@pytest.fixture
def example(documented: Callable[[str], str]) -> str:
    """The model in the documentation."""
    return documented("own-model.md")


def test_example__of_the_documentation_trains_in_both_phases(
    write_module: Callable[[str, str], Path],
    tmp_path: Path,
    refshapes: ReferDataset,
    viewed_store: Path,
    nano_config: Callable[..., TrainConfig],
    example: str,
) -> None:
    name = write_module("documented_model", example).stem
    config = nano_config(method="semires", model=f"{name}:build", mutual_epochs=2, num_evaluations=1)
    result = train_run(config, refshapes, tmp_path / "run", torch.device("cpu"), store=viewed_store)
    assert result["steps"] >= 10
    folder = RunFolder(tmp_path / "run")
    found, model = folder.load_model()
    assert found.model == "documented_model:build"
    assert type(model).__name__ == "FilmNet"
    burnt_in = RunFolder(tmp_path / "run" / "burn-in").load_model()[1].state_dict()
    assert any(not torch.equal(tensor, burnt_in[name]) for name, tensor in model.state_dict().items())


def test_parameter_groups__vectors_do_not_decay(write_module: Callable[[str, str], Path], example: str) -> None:
    model = model_of_factory(write_module("decaying_model", example).stem + ":build", pretrained=True)
    assert model.training
    decayed, plain = model.parameter_groups(weight_decay=0.1, learning_rate=1e-3)
    assert (decayed["weight_decay"], plain["weight_decay"], decayed["lr"]) == (0.1, 0.0, 1e-3)
    assert all(parameter.ndim > 1 for parameter in decayed["params"])
    assert len(decayed["params"]) + len(plain["params"]) == len(list(model.parameters()))
    assert tuple(model.text_modules()) == ()


BROKEN = {
    "no_model": ("def build(pretrained): return 3", r"build to return a ResModel, found int"),
    "no_size": ("", r"with image_size in pixels, found None"),
    "no_tokenizer": ("        self.image_size = 32", r"with a Tokenizer, found NoneType"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_factory__returns_something_else(write_module: Callable[[str, str], Path], case: str) -> None:
    body, message = BROKEN[case]
    source = body
    if case != "no_model":
        source = (
            "from semires.stages.train.models import ResModel\n"
            "class Model(ResModel):\n    def __init__(self):\n        super().__init__()\n"
            f"{body}\n    def forward(self, *batch): return batch[0]\n"
            "def build(pretrained): return Model()\n"
        )
    with pytest.raises(InputError, match=message) as caught:
        model_of_factory(write_module(f"broken_{case}", source).stem + ":build", pretrained=True)
    assert "\n" not in str(caught.value)


def test_factory__other_logits(write_module: Callable[[str, str], Path], example: str) -> None:
    source = example.replace("self.classify = nn.Conv2d(width, 2, 1)", "self.classify = nn.Conv2d(width, 1, 1)")
    with pytest.raises(InputError, match=r"logits float \[2, 2, 96, 96\].*found torch\.float32 \[2, 1, 96, 96\]"):
        model_of_factory(write_module("one_channel", source).stem + ":build", pretrained=True)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("not_there_at_all:build", "expected a module not_there_at_all, found none"),
        ("semires.not_there:build", r"expected a module semires\.not_there, found none"),
        ("json:loadz", "expected a function 'loadz'"),
        ("json:__doc__", "expected a function '__doc__'"),
        (":build", "PACKAGE.MODULE:FACTORY"),
        ("json:", "PACKAGE.MODULE:FACTORY"),
    ],
)
def test_factory__is_not_there(name: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        model_of_factory(name, pretrained=True)


def test_factory__errors_of_its_own_keep_their_traceback(write_module: Callable[[str, str], Path]) -> None:
    name = write_module("importing_what_is_missing", "import a_module_nobody_has\n").stem
    with pytest.raises(ModuleNotFoundError, match="a_module_nobody_has"):
        model_of_factory(f"{name}:build", pretrained=True)


def test_res_model__cannot_be_made_without_forward() -> None:
    with pytest.raises(TypeError, match="abstract"):
        ResModel()  # type: ignore[abstract]
