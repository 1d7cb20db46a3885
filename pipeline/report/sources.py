"""What `semires report` is given: folders of runs, and studies by name or file."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from semires.pipeline.paths import Paths
from semires.pipeline.progress import OnProgress
from semires.pipeline.study.catalogue import find_study, recipe_names
from semires.pipeline.study.command import changed_study, runs_of
from semires.pipeline.study.conducting import gather
from semires.pipeline.study.description import Study
from semires.pipeline.study.preparing import prepare_study
from semires.pipeline.study.results import StudyResult
from semires.pipeline.trained import is_run
from semires.stages.data.errors import InputError


@dataclass(frozen=True, kw_only=True)
class Sources:
    """Folders of runs, and studies."""

    runs: tuple[Path, ...]
    studies: tuple[Study, ...]


def read_sources(names: Sequence[str], *, full: bool = False, num_seeds: int | None = None) -> Sources:
    """What the names that a user typed are. full, num_seeds: as of `semires study`. InputError for what is neither a
    run nor a study."""
    runs, studies = dict[Path, Path](), []
    for name in dict.fromkeys(names):
        if is_run(Path(name)):
            runs.setdefault(Path(name).resolve(), Path(name))
        elif name in recipe_names() or name.endswith(".toml"):
            studies.append(changed_study(find_study(name, full=full), num_seeds=num_seeds))
        else:
            raise InputError(
                f"expected the folder of a run, or a study ({', '.join(recipe_names())}, or a .toml file), found "
                f"{name!r}"
            )
    return Sources(runs=tuple(runs.values()), studies=tuple(studies))


def finished_result(study: Study, paths: Paths, device: torch.device, on_progress: OnProgress) -> StudyResult:
    """The result of those of a study's runs that are finished; nothing is trained."""
    runs = runs_of(study, device)
    return gather(study, runs, prepare_study(runs, paths, on_progress), paths, device, on_progress)
