"""`semires doctor`: what is here, what works, and what is missing for the next step."""

from pathlib import Path
from typing import Annotated

import typer

from semires.pipeline.commands.options import CocoImages, Data, make_paths


def doctor(
    data: Data = None,
    coco_images: CocoImages = None,
    thorough: Annotated[
        bool,
        typer.Option("--thorough", help="Read data sets and compare weights by sha256 too: minutes (default: no)."),
    ] = False,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="JSON to write, or - to print it and nothing else. Default: none.")
    ] = None,
) -> None:
    """Look at this machine: Python, torch, devices, memory, disks, data, weights, and what each command can do now.

    The exit code is 1 where the main job, training on RefShapes, cannot run.
    """
    import json

    from rich.table import Table
    from rich.text import Text

    from semires.pipeline.doctor.belongings import look_at_data, look_at_runs, look_at_stores, look_at_weights
    from semires.pipeline.doctor.computing import look_at_computing
    from semires.pipeline.doctor.findings import Finding, examined, report_json
    from semires.pipeline.doctor.machine import look_at_machine
    from semires.pipeline.doctor.next_steps import look_at_next_steps
    from semires.pipeline.doctor.packages import look_at_packages
    from semires.pipeline.progress import console, progress

    paths = make_paths(data, coco_images)
    is_printed_alone = json_file is not None and str(json_file) == "-"
    told: list[tuple[str, list[Finding]]] = []

    def can_train() -> bool:
        return not any(finding.state == "bad" for _, findings in told for finding in findings)

    with progress(shown=not is_printed_alone) as on_progress:
        sections = (
            ("machine", lambda: look_at_machine(paths)),
            ("packages", look_at_packages),
            ("computing", look_at_computing),
            ("data", lambda: look_at_data(paths, thorough=thorough)),
            ("weights", lambda: look_at_weights(paths, on_progress, thorough=thorough)),
            ("candidates", lambda: look_at_stores(paths)),
            ("runs", lambda: look_at_runs(paths)),
            ("next", lambda: look_at_next_steps(paths, can_train=can_train())),
        )
        for title, findings in examined(sections):
            told.append((title, findings))
            if is_printed_alone:
                continue
            table = Table("", "", "", show_header=False, title=title, title_justify="left", box=None, pad_edge=False)
            for one in findings:
                mark = {"good": "", "missing": "-", "bad": "!"}[one.state]
                table.add_row(mark, Text(one.what), Text(f"{one.found}" + (f"\n-> {one.remedy}" if one.remedy else "")))
            console.print(table)
            console.print()
    report = report_json(told)
    if is_printed_alone:
        print(json.dumps(report, indent=1))
    elif json_file is not None:
        from semires.stages.train.models.checkpoints.replacing import replace_text

        replace_text(json_file, json.dumps(report, indent=1) + "\n")
        console.print(f"written: {json_file}", soft_wrap=True)
    if not is_printed_alone:
        how = "" if thorough else "; data sets were not read and weights not hashed (--thorough)"
        verdict = (
            "training on RefShapes can run here" if report["can_train"] else "training on RefShapes CANNOT run here (!)"
        )
        console.print(f"{verdict}{how}", soft_wrap=True)
    if not report["can_train"]:
        raise typer.Exit(1)
