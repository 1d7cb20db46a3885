"""Counts what tensors hold and what operations multiply while code runs, on real tensors or on fake ones."""

import weakref
from collections.abc import Iterable
from typing import Any, Literal, get_args

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

Kind = Literal["student", "gradients", "optimizer", "teacher", "activations"]
"""What memory is taken for; activations are all that is none of the others: what the backward pass needs, the batch,
and what lives for a moment."""

KINDS: tuple[Kind, ...] = get_args(Kind)


class StepMeter(TorchDispatchMode):
    """Within it every tensor that an operation returns is seen until its storage is freed.

    Bytes are those of storages, each once, whatever views there are. torch's MemTracker counts so too; of fake tensors
    that were made of none of a module's calls it needs to be told, and it keeps no snapshot of its parts at the peak.

    Not seen: what a kernel takes and gives back by itself (workspaces of convolutions), what an allocator keeps unused.
    """

    live: dict[Kind, int]
    """Bytes now."""
    peak: dict[Kind, int]
    """Bytes at the moment of the highest sum."""
    flops: int
    """Floating-point operations of matrix products, convolutions and attention, 2 a multiply-add."""

    def __init__(self) -> None:
        super().__init__()
        self.live = dict.fromkeys(KINDS, 0)
        self.peak = dict(self.live)
        self.flops = 0
        self._sum = 0
        self._highest = 0
        self._held: dict[int, tuple[Kind, int, weakref.ref[torch.UntypedStorage]]] = {}

    def hold(self, kind: Kind, tensors: Iterable[Tensor]) -> None:
        """Count these tensors' storages as `kind`, from now on, whether or not they were seen before."""
        for tensor in tensors:
            storage = tensor.untyped_storage()
            self._forget(storage._cdata)
            self._add(storage, kind)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        returned = func(*args, **kwargs)
        for value in tree_leaves(returned):
            if isinstance(value, Tensor):
                storage = value.untyped_storage()
                if storage._cdata not in self._held:
                    self._add(storage, "activations")
        count = flop_registry.get(func._overloadpacket)
        if count is not None:
            self.flops += count(*args, **kwargs, out_val=returned)
        return returned

    def _add(self, storage: torch.UntypedStorage, kind: Kind) -> None:
        key, num_bytes = storage._cdata, storage.nbytes()
        self._held[key] = kind, num_bytes, weakref.ref(storage, lambda _: self._forget(key))
        self.live[kind] += num_bytes
        self._sum += num_bytes
        if self._sum > self._highest:
            self._highest = self._sum
            self.peak = dict(self.live)

    def _forget(self, key: int) -> None:
        if (held := self._held.pop(key, None)) is not None:
            self.live[held[0]] -= held[1]
            self._sum -= held[1]
