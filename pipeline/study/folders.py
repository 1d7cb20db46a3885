"""Where the runs of studies lie: `<runs>/studies/<address>`, the same run of several studies once."""

from collections.abc import Iterable
from pathlib import Path

from semires.pipeline.paths import Paths
from semires.pipeline.progress import console
from semires.pipeline.study.cells import RunSpec
from semires.stages.data.splits import short_name
from semires.stages.train.run_folder import RunFolder


def study_folder(paths: Paths) -> Path:
    """The folder of all runs of studies."""
    return paths.runs / "studies"


def run_folder(paths: Paths, spec: RunSpec) -> Path:
    """The folder of a run."""
    return study_folder(paths) / spec.address


def adopt_former(paths: Paths, specs: Iterable[RunSpec]) -> None:
    """Move runs of Table 1 from where they lay before studies, `<runs>/table1/<data>/<share>/seed<n>/<method>`, to
    their addresses, and say so. One of other settings than those asked for stays where it is, which is said too."""
    for spec in specs:
        former = _former(paths, spec)
        folder, run = run_folder(paths, spec), RunFolder(former)
        if folder.exists() or not run.is_started:
            continue
        # Of mutual learning the burn-in decides too: it was the run beside it, which comes first.
        differences = run.read_config().differences(spec.config)
        if spec.burn_in is not None and not run_folder(paths, spec.burn_in).exists():
            differences = {"burn_in": (str(former.parent / "supervised"), "another")}
        if differences:
            what = ", ".join(f"{name} {found!r}, not {asked!r}" for name, (found, asked) in differences.items())
            console.print(f"{former} is left alone, it was begun with {what}", soft_wrap=True)
            continue
        folder.parent.mkdir(parents=True, exist_ok=True)
        former.rename(folder)
        console.print(f"{former} is now {folder}", soft_wrap=True)


def _former(paths: Paths, spec: RunSpec) -> Path:
    config = spec.config
    share = paths.runs / "table1" / short_name(config.split) / f"{config.labeled:g}"
    return share / f"seed{config.seed}" / config.method
