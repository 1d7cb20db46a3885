"""Small constant tensors that depend on nothing but sizes: built once for each size, not once for each step."""

import functools
from collections.abc import Callable

import torch
from torch import Tensor


def once_per_size(build: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Turn `build(*sizes, dtype, device)` into `get(*sizes, like)`, which remembers what was built last.

    The tensor has the dtype and device of the tensor `like` and must not be written to. Models share what is
    remembered and own none of it: copies, pickles and state dicts are free of it.

    Under torch.compile and torch.export, and for `like` that is no plain tensor (FakeTensorMode), it is built anew:
    sizes may be symbols there, and a tensor of one trace must not reach another.
    """

    @functools.lru_cache(maxsize=64)
    def remembered(*arguments: object) -> Tensor:
        # A tensor born in inference mode could not take part in training later.
        with torch.inference_mode(False):
            return build(*arguments)

    @functools.wraps(build)
    def get(*sizes: int, like: Tensor) -> Tensor:
        is_traced = torch.compiler.is_compiling() or type(like) is not Tensor
        return (build if is_traced else remembered)(*sizes, like.dtype, like.device)

    return get
