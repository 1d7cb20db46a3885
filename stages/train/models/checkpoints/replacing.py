"""Files and folders that are there whole or not at all, whenever the writer is killed."""

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from semires.stages.data.errors import InputError

# What a folder of a model may hold and still be replaced; anything else is somebody's work.
MODEL_FILES = {
    *("config.json", "model.safetensors", "unread.safetensors", "README.md", ".gitattributes"),
    *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"),
    *("vocab.txt", "vocab.json", "merges.txt"),
}


@contextmanager
def replacing_folder(folder: Path, is_ours: Callable[[dict[str, Any]], bool]) -> Iterator[Path]:
    """A new folder to write into, which becomes `folder` at the end of the block; on an error it is removed.

    An empty `folder` is replaced, and one that holds a model: nothing but a model's files, and a config.json that
    `is_ours`. InputError, before anything is written, for any other and for a path that cannot be written to.
    """
    check_replaceable(folder, is_ours)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    except OSError as error:
        raise InputError(f"expected a folder that can be written, found {folder} ({error}): choose another") from error
    try:
        yield temporary
        # Temporary folders, and what safetensors writes, are their owner's alone.
        mask = _umask()
        temporary.chmod(0o777 & ~mask)
        for path in temporary.iterdir():
            path.chmod(0o666 & ~mask)
        if not folder.exists():
            temporary.rename(folder)
            return
        old = Path(tempfile.mkdtemp(prefix=f".{folder.name}.old.", dir=folder.parent))
        folder.replace(old)
        try:
            temporary.rename(folder)
        except OSError:
            old.replace(folder)
            raise
        shutil.rmtree(old)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def check_replaceable(folder: Path, is_ours: Callable[[dict[str, Any]], bool]) -> None:
    """InputError unless `replacing_folder` may replace `folder`."""
    if not folder.exists():
        return
    if not folder.is_dir():
        raise InputError(f"expected a folder to write to, found a file at {folder}: choose another name")
    held = {path.name for path in folder.iterdir()}
    if not held:
        return
    others = sorted(held - MODEL_FILES)
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        config = None
    if others or not isinstance(config, dict) or not is_ours(config):
        example = others[0] if others else sorted(held)[0]
        raise InputError(
            f"expected a new folder, or one of a model of this kind, to write to, found {folder} with other files "
            f"(e.g. {example}): choose another name, or empty it"
        )


@contextmanager
def replacing_file(path: Path) -> Iterator[Path]:
    """A path to write a file to, which becomes `path` at the end of the block; on an error it is removed.

    A link stays one, to the new file; what is no file, a terminal or /dev/null, is itself written to.
    """
    path = path.resolve()
    if path.exists() and not path.is_dir() and not path.is_file():
        yield path
        return
    if path.is_dir():
        raise InputError(f"expected a file to write to, found a folder at {path}: name a file in it")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"expected a file that can be written, found {path} ({error}): choose another") from error
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        temporary.replace(path)
    except OSError as error:
        raise InputError(f"expected a file that can be written, found {path} ({error}): choose another") from error
    finally:
        temporary.unlink(missing_ok=True)


def replace_text(path: Path, text: str) -> None:
    """Write a UTF-8 file through `replacing_file`."""
    with replacing_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _umask() -> int:
    # There is no way to read it alone.
    mask = os.umask(0)
    os.umask(mask)
    return mask
