"""A trained model of a path that a user typed: a run's folder or a model's."""

from pathlib import Path

from semires.stages.data.errors import InputError
from semires.stages.train.models.checkpoints.folder import is_model_folder, open_model
from semires.stages.train.models.interface import ResModel
from semires.stages.train.run_folder import RunFolder


def is_run(folder: Path) -> bool:
    """Whether a folder holds a run, finished or not."""
    return RunFolder(folder).is_started and (folder / "labeled_images.json").is_file()


def open_trained(source: Path) -> ResModel:
    """The model in a folder, or the best one of a run, on the CPU in evaluation mode; InputError where none is."""
    if is_model_folder(source):
        return open_model(source)
    if not is_run(source):
        raise InputError(
            f"expected the folder of a run or of a model, found none at {source}: give one of `semires train` or "
            "`semires convert`"
        )
    return RunFolder(source).load_model()[1]
