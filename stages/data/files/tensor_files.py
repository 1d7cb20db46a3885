"""Tensors in safetensors files, with the mode and the errors of any other file.

safetensors makes files that only their owner may read, calls a full disk a format error, and says of a file that it
cannot open that there is none.
"""

from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor


def save_tensors(tensors: Mapping[str, Tensor], path: Path, metadata: dict[str, str] | None = None) -> None:
    """Write tensors of any device to `path`, whole or not at all: through a file beside it.

    Tied weights, which share memory, are written each. OSError where it cannot be written, a full disk included.
    """
    temporary = path.with_name(f"{path.name}.tmp")
    # One at a time: a copy of them all is more memory than a run has to spare.
    state, seen = dict[str, Tensor](), set[int]()
    for name, tensor in tensors.items():
        tensor = tensor.detach().cpu().contiguous()
        memory = tensor.untyped_storage().data_ptr()
        state[name] = tensor.clone() if memory in seen else tensor
        seen.add(memory)
    try:
        temporary.touch()
        mode = temporary.stat().st_mode  # by the umask
        save_file(state, temporary, metadata=metadata)
        temporary.chmod(mode)
        temporary.replace(path)
    except SafetensorError as error:
        temporary.unlink(missing_ok=True)
        raise OSError(f"{path}: {error}") from error
    except OSError:
        temporary.unlink(missing_ok=True)
        raise


def load_tensors(path: Path) -> dict[str, Tensor]:
    """Read tensors on the CPU. OSError, as the system says it, where the file cannot be opened, SafetensorError where
    it is damaged or another."""
    with path.open("rb"):
        pass
    return load_file(path)
