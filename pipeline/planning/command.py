"""What `semires train --plan` prints."""

from pathlib import Path

from semires.pipeline.paths import Paths
from semires.pipeline.planning.counts import count_samples
from semires.pipeline.planning.devices import plan_device
from semires.pipeline.planning.plan import make_plan
from semires.pipeline.planning.report import as_json, headline, memory_line, parameter_table, phase_table, plan_lines
from semires.pipeline.progress import console
from semires.stages.train.config import TrainConfig
from semires.stages.train.models.checkpoints.replacing import replace_text


def print_plan(
    config: TrainConfig,
    paths: Paths,
    device_name: str | None,
    *,
    num_gpus: int,
    has_burn_in: bool,
    write_json_to: Path | None,
) -> None:
    """Plan the run of `config` and print it; nothing is started, and nothing written but the file asked for."""
    plan = make_plan(
        config,
        count_samples(config, paths),
        plan_device(device_name),
        num_gpus=num_gpus,
        has_burn_in=has_burn_in,
    )
    console.print(headline(plan), soft_wrap=True)
    console.print(parameter_table(plan))
    console.print(phase_table(plan))
    for line in plan_lines(plan):
        console.print(line, soft_wrap=True)
    console.print(memory_line(plan), soft_wrap=True)
    if write_json_to is not None:
        replace_text(write_json_to, as_json(plan))
