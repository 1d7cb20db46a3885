"""`semires doctor`: what is here, what works, and what is missing for the next step."""

from collections.abc import Iterable
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

    from semires.pipeline.doctor.findings import Finding, Section, examined, report_json
    from semires.pipeline.progress import console, progress

    paths = make_paths(data, coco_images)
    is_printed_alone = json_file is not None and str(json_file) == "-"
    told: list[tuple[str, list[Finding]]] = []

    def can_train() -> bool:
        return not any(finding.state == "bad" for _, findings in told for finding in findings)

    # Each imports what it needs when it looks: of a broken package the others know nothing.
    def machine() -> Iterable[Finding]:
        from semires.pipeline.doctor.machine import look_at_machine

        return look_at_machine(paths)

    def packages() -> Iterable[Finding]:
        from semires.pipeline.doctor.packages import look_at_packages

        return look_at_packages()

    def computing() -> Iterable[Finding]:
        from semires.pipeline.doctor.computing import look_at_computing

        return look_at_computing()

    def data_sets() -> Iterable[Finding]:
        from semires.pipeline.doctor.belongings import look_at_data

        return look_at_data(paths, thorough=thorough)

    def weights() -> Iterable[Finding]:
        from semires.pipeline.doctor.belongings import look_at_weights

        return look_at_weights(paths, on_progress, thorough=thorough)

    def candidates() -> Iterable[Finding]:
        from semires.pipeline.doctor.belongings import look_at_stores

        return look_at_stores(paths)

    def runs() -> Iterable[Finding]:
        from semires.pipeline.doctor.belongings import look_at_runs

        return look_at_runs(paths)

    def next_steps() -> Iterable[Finding]:
        from semires.pipeline.doctor.next_steps import look_at_next_steps

        return look_at_next_steps(paths, can_train=can_train())

    with progress(shown=not is_printed_alone) as on_progress:
        sections = (
            Section(title="machine", look=machine, is_needed=True),
            Section(title="packages", look=packages, is_needed=True),
            Section(title="computing", look=computing, is_needed=True),
            Section(title="data", look=data_sets, is_needed=False),
            Section(title="weights", look=weights, is_needed=False),
            Section(title="candidates", look=candidates, is_needed=False),
            Section(title="runs", look=runs, is_needed=False),
            Section(title="next", look=next_steps, is_needed=False),
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
