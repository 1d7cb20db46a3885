"""Where a converted model's weights come from, and what our network has no place for."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from semires.stages.data.errors import InputError

LAYOUTS = ("lavt", "lavt-one")


@dataclass(frozen=True, kw_only=True)
class Origin:
    """What a LAVT keeps of the checkpoint that it was converted from, so that the way back is bit-equal."""

    layout: str
    """lavt or lavt-one."""
    file: str
    """The checkpoint's file name."""
    sha256: str
    """Of the file, hexadecimal."""
    epoch: int | None = None
    """The epoch that it was saved after, from 0; None where the file does not tell."""
    absent: tuple[str, ...] = ()
    """Tensors of the layout that the file did not have, by their names in it (lavt-one's)."""
    unread: Mapping[str, Tensor] = field(default_factory=dict)
    """Tensors of the file that our network has no place for, by their names in it (lavt-one's)."""

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON, without the tensors; `from_dict` reads it back."""
        values = {"layout": self.layout, "file": self.file, "sha256": self.sha256, "epoch": self.epoch}
        return values | {"absent": list(self.absent)}

    @classmethod
    def from_dict(cls, values: Any, unread: Mapping[str, Tensor]) -> "Origin":
        """Read what `to_dict` wrote; InputError for anything else."""
        kinds: dict[str, Any] = {"layout": str, "file": str, "sha256": str, "epoch": int | None, "absent": list}
        if (
            not isinstance(values, Mapping)
            or values.keys() != kinds.keys()
            or not all(isinstance(values[name], kind) for name, kind in kinds.items())
            or values["layout"] not in LAYOUTS
            or not all(isinstance(name, str) for name in values["absent"])
        ):
            raise InputError(
                f"expected an origin of {', '.join(kinds)}, found {values!r}: convert the checkpoint again"
            )
        return cls(**{**values, "absent": tuple(values["absent"])}, unread=unread)
