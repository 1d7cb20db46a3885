"""Batch norm over the samples of all ranks."""

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx


def synchronize_batch_norm(model: nn.Module, device: torch.device) -> nn.Module:
    """`model` with each BatchNorm2d taking its statistics from all ranks; same parameters, same state dict.

    On CUDA torch's own SyncBatchNorm, which knows no other device; elsewhere the same thing in a few lines.
    """
    if device.type == "cuda":
        converted: nn.Module = nn.SyncBatchNorm.convert_sync_batchnorm(model)
        return converted
    for module in model.modules():
        if type(module) is nn.BatchNorm2d:
            module.__class__ = RankedBatchNorm2d
    return model


class RankedBatchNorm2d(nn.BatchNorm2d):
    """BatchNorm2d whose training statistics are those of the whole batch, over all ranks (gloo)."""

    def forward(self, input: Tensor) -> Tensor:
        """float [B, C, H, W] to the same shape and dtype; B may differ between ranks."""
        if not self.training:
            return super().forward(input)
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        x = input.to(torch.promote_types(input.dtype, torch.float32))
        count = _AllReduce.apply(x.new_tensor(float(x.numel() // x.shape[1])))
        # The mean first: sums of squares alone would cancel.
        mean = _AllReduce.apply(x.sum(dim=(0, 2, 3))) / count
        centered = x - mean[:, None, None]
        variance = _AllReduce.apply(centered.square().sum(dim=(0, 2, 3))) / count
        with torch.no_grad():
            self.num_batches_tracked += 1
            share = self.momentum if self.momentum is not None else 1.0 / float(self.num_batches_tracked)
            self.running_mean.lerp_(mean.to(self.running_mean.dtype), share)
            self.running_var.lerp_((variance * count / (count - 1)).to(self.running_var.dtype), share)
        normed = centered * (variance + self.eps).rsqrt()[:, None, None]
        return (normed * self.weight[:, None, None] + self.bias[:, None, None]).to(input.dtype)


class _AllReduce(torch.autograd.Function):
    """A sum over the ranks, of gradients as well: each rank's loss depends on every rank's samples."""

    @staticmethod
    def forward(ctx: FunctionCtx, tensor: Tensor) -> Tensor:
        summed = tensor.clone()
        dist.all_reduce(summed)
        return summed

    @staticmethod
    def backward(ctx: FunctionCtx, *grad_outputs: Tensor) -> Tensor:
        summed = grad_outputs[0].clone()
        dist.all_reduce(summed)
        return summed
