"""`semires study …`: the paper's experiments by name, a study of one's own, and what finished runs tell."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from semires.pipeline.commands import completion
from semires.pipeline.commands.options import (
    AllowMissing,
    Bert,
    CocoImages,
    Data,
    Device,
    LogTo,
    NumWorkers,
    PlanDevice,
    PlanJson,
    Runs,
    Store,
    Swin,
    check_folder,
    given,
    make_paths,
    prepare_file,
    prepare_json,
    require_run,
    unused,
)

RECIPES = "table1 … table7, table9, figure6, figure7"


class _Studies(TyperGroup):
    """What is no command of the group is a study: a recipe's name or a file."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """`study table2 …` is `study run table2 …`."""
        is_command = bool(args) and (args[0] in self.commands or args[0].startswith("-"))
        return super().resolve_command(ctx, args if is_command else ["run", *args])


_HELP = f"Conduct a study ({RECIPES}, or a .toml file of your own), or ask finished runs what an idea is worth."

app = typer.Typer(help=_HELP, no_args_is_help=True, cls=_Studies)


@app.callback(help=_HELP)
def study() -> None:
    """The group; its help is above."""


Workers = Annotated[
    int | None,
    typer.Option(
        min=1, help="Runs trained at once. Default: one a GPU; on a CPU one more than its threads, of one thread each."
    ),
]
GpusPerRun = Annotated[int, typer.Option(min=1, help="GPUs that train each run together, by torchrun.")]
LauncherOption = Annotated[
    str,
    typer.Option(
        "--launcher", help="local: this machine; slurm: a job a run (semires[slurm]); submitit-local: trying that here."
    ),
]
Slurm = Annotated[
    list[str] | None,
    typer.Option(
        help="Parameter of the jobs, such as partition=gpu or timeout_min=2880; several times. Default: none.",
        metavar="NAME=VALUE",
        show_default=False,
    ),
]
Split = Annotated[
    list[str] | None,
    typer.Option(help="Only these data sets; also a .jsonl file. Default: all of the study.", show_default=False),
]
Share = Annotated[
    list[float] | None,
    typer.Option(help="Only these labeled shares, above 0 to 1. Default: all of the study.", show_default=False),
]


@app.command("run")
def run_command(
    name: Annotated[
        str,
        typer.Argument(
            metavar="STUDY",
            help=f"{RECIPES}, or a .toml file (docs/experiments.md).",
            autocompletion=completion.study,
        ),
    ],
    full: Annotated[
        bool, typer.Option("--full", help="The paper's data sets and shares, in place of the small default.")
    ] = False,
    seeds: Annotated[
        int | None, typer.Option(min=1, help="Seeds 0, 1, … of each cell. Default: the study's own.")
    ] = None,
    split: Split = None,
    share: Share = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            help="A setting of all runs, such as precision=fp32 or match.inter1=0.6. Default: none.",
            metavar="NAME=VALUE",
        ),
    ] = None,
    swin: Swin = None,
    bert: Bert = None,
    num_workers: NumWorkers = None,
    data: Data = None,
    coco_images: CocoImages = None,
    allow_missing: AllowMissing = False,
    runs: Runs = None,
    device: Device = None,
    workers: Workers = None,
    gpus_per_run: GpusPerRun = 1,
    launcher: LauncherOption = "local",
    slurm: Slurm = None,
    log_to: LogTo = None,
    plan: Annotated[
        bool, typer.Option("--plan", help="Only print what the runs will take (hours, disk); no data or GPU is needed.")
    ] = False,
    plan_device: PlanDevice = None,
    plan_json: PlanJson = None,
) -> None:
    """Train what is missing of a study's runs, print its tables beside the paper's numbers; goes on where it stopped.

    Runs lie in <runs>/studies, a folder for each set of settings: studies share them, and several such commands on one
    file system share the work. What cannot be measured is named; the exit code is then 1.
    """
    from semires.pipeline.progress import progress
    from semires.pipeline.running.launchers import LaunchOptions
    from semires.pipeline.running.loggers import choose_loggers
    from semires.pipeline.running.processes import joined_ranks
    from semires.pipeline.running.stage_runs import choose_device
    from semires.pipeline.study.catalogue import find_study
    from semires.pipeline.study.command import changed_study, parse_settings, plan_study, run_study, runs_of
    from semires.stages.data.errors import InputError

    chosen = changed_study(find_study(name, full=full), splits=split, shares=share, num_seeds=seeds)
    launch = LaunchOptions(
        launcher=launcher,  # type: ignore[arg-type]  # which it checks
        num_workers=workers,
        gpus_per_run=gpus_per_run,
        slurm=parse_settings(slurm or (), "--slurm"),
        device=device,
    )
    paths = make_paths(data, coco_images, runs, allow_missing=allow_missing)
    chosen_device = choose_device(device)
    cell_runs = runs_of(
        chosen,
        launch.device_of_runs(chosen_device),
        settings=parse_settings(settings or (), "--set") | given(num_workers=num_workers),
        backbones=given(swin=swin, bert=bert),
    )
    if plan:
        prepare_file(plan_json, "--plan-json")
        plan_study(
            chosen,
            cell_runs,
            paths,
            chosen_device,
            launch=launch,
            plan_device=plan_device,
            write_json_to=plan_json,
        )
        return
    with joined_ranks(chosen_device) as ranks:
        if ranks.is_many:
            raise InputError(
                f"study: expected one process, found {ranks.world_size} that torchrun started; start it alone, with "
                "--gpus-per-run for runs on several GPUs"
            )
        loggers = choose_loggers(log_to)
        for option, folder in (("--runs", paths.runs / "studies"), ("reports", paths.reports)):
            check_folder(option, folder)
        with progress() as on_progress:
            _, is_whole = run_study(chosen, cell_runs, paths, chosen_device, on_progress, launch=launch, log_to=loggers)
    if not is_whole:
        raise typer.Exit(1)


@app.command("labels")
def labels_study(
    run: Annotated[Path, typer.Argument(help="Folder of a finished run; a burn-in is one too.")],
    data: Data = None,
    coco_images: CocoImages = None,
    allow_missing: AllowMissing = False,
    store: Store = None,
    device: Device = None,
    expressions: Annotated[
        int, typer.Option(min=0, help="Expressions of a ref that consensus reads at most; 0: all.")
    ] = 2,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="JSON to write. Default: reports/labels.json.")
    ] = None,
) -> None:
    """Pseudo-labels of a run's teacher under every refinement, side by side, against the hidden masks."""
    require_run(run)

    from semires.pipeline.audit.labels import study_labels
    from semires.pipeline.audit.report import notes, tables
    from semires.pipeline.progress import console, progress
    from semires.pipeline.running.stage_runs import choose_device
    from semires.stages.train.models.checkpoints.replacing import replace_text

    paths = make_paths(data, coco_images, allow_missing=allow_missing)
    chosen_device = choose_device(device)
    prepare_json(json_file)
    with progress() as on_progress:
        found = study_labels(run, paths, chosen_device, on_progress, expressions=expressions or None, store=store)
    for table in tables(found):
        console.print(table)
    for note in notes(found):
        console.print(note, soft_wrap=True)
    target = json_file or unused(paths.reports / "labels.json")
    target.parent.mkdir(parents=True, exist_ok=True)
    replace_text(target, json.dumps(found.to_dict(), indent=1) + "\n")
    console.print(f"written: {target}", soft_wrap=True)


@app.command()
def compare(
    runs: Annotated[list[Path], typer.Argument(help="Folders of finished runs, one a seed.")],
    against: Annotated[list[Path], typer.Option(help="A run to compare with; once for each run, in the same order.")],
    data: Data = None,
    coco_images: CocoImages = None,
    allow_missing: AllowMissing = False,
    device: Device = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="JSON to write. Default: none.")] = None,
) -> None:
    """Paired differences in oIoU of two methods' runs, with 95% intervals by bootstrap over seeds and images."""
    for run in (*runs, *against):
        require_run(run)

    from semires.pipeline.progress import console, progress
    from semires.pipeline.running.stage_runs import choose_device
    from semires.pipeline.study.comparison import compare_runs, comparison_table
    from semires.stages.train.models.checkpoints.replacing import replace_text

    paths = make_paths(data, coco_images, allow_missing=allow_missing)
    prepare_json(json_file)
    with progress() as on_progress:
        found = compare_runs(runs, against, paths, choose_device(device), on_progress)
    console.print(comparison_table(found))
    if json_file is not None:
        replace_text(json_file, json.dumps(found.to_dict(), indent=1) + "\n")
        console.print(f"written: {json_file}", soft_wrap=True)
