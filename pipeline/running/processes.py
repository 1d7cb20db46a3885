"""A command that torchrun may have started several times: one display, and each error said once, in one line."""

import errno
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import torch
import typer

from semires.cache.errors import StoreError
from semires.pipeline.progress import console
from semires.stages.data.errors import InputError
from semires.stages.processes.ranks import Ranks, SaidElsewhere
from semires.stages.processes.stopping import StopRequested
from semires.stages.processes.torchrun import first_line

_DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextmanager
def joined_ranks(device: torch.device) -> Iterator[Ranks]:
    """This process among those of torchrun's job, alone where there is none. Rank 0 alone prints on the console.

    An error that several ranks meet is raised in one of them, the others end with exit code 2 and without a word. A
    device or a disk that is full is an InputError. A signal that training has heard ends with a line, and the exit code
    that a shell expects. Where another rank has died, the end of this one is said in a line.
    """
    ranks = Ranks.join(device)
    console.quiet = not ranks.is_main
    try:
        yield ranks
    except SaidElsewhere:
        raise typer.Exit(2) from None
    except StopRequested as stop:
        if ranks.is_main:
            print(f"stopped by {stop}, a state is saved; type the command again to go on", file=sys.stderr)
        raise typer.Exit(stop.exit_code) from None
    except (InputError, StoreError, torch.OutOfMemoryError, OSError) as error:
        told = in_one_line(error, device)
        if told is None:
            raise
        if not ranks.claims(str(told)):
            raise typer.Exit(2) from None
        raise told from (None if told is error else error)
    except RuntimeError as error:
        if not ranks.is_many or not _is_of_connection(error):
            raise
        raise InputError(
            f"rank {ranks.rank}: expected the other processes, lost them ({first_line(error)}); what the first of them "
            "had to say is above: type the command again to go on from the last state"
        ) from error
    finally:
        console.quiet = False
    ranks.leave()


def in_one_line(error: Exception, device: torch.device) -> InputError | StoreError | None:
    """An error that a user can mend, a device or a disk that is full among them, as one that is said in a line; None
    for any other."""
    if isinstance(error, InputError | StoreError):
        return error
    if isinstance(error, torch.OutOfMemoryError):
        return InputError(
            f"expected a step to fit into the memory of {device}, found it full ({first_line(error)}): give "
            "--micro-batch N, --grad-checkpointing or --precision bf16; `semires train --plan` says what fits"
        )
    if isinstance(error, OSError) and (
        error.errno in _DISK_ERRORS or any(os.strerror(number) in str(error) for number in _DISK_ERRORS)
    ):
        return InputError(
            f"expected space for the run's files, found none ({first_line(error)}): free some, then type the command "
            "again to go on from the last state"
        )
    return None


def _is_of_connection(error: RuntimeError) -> bool:
    """Whether a collective failed because another process is gone: gloo has no type of its own for that."""
    return isinstance(error, torch.distributed.DistError) or any(
        words in str(error)
        for words in ("onnection closed", "onnection reset", "roken pipe", "gloo", "onnection refused")
    )
