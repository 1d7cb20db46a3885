"""The visual trunk of LAVT: a Swin Transformer that hands out its four stages, with or without language fused in.

The modules and their weights are the ones of transformers; what is ours is the walk through them (`swin_blocks`),
because LAVT steps in between a stage's blocks and its downsampling (Yang et al., CVPR 2022).

Axes: B batch, N = H * W positions in row-major order, C channels of a stage (`embed_dim * 2 ** stage`).
"""

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor, nn
from transformers import SwinConfig, SwinModel

from semires.stages.data.errors import InputError
from semires.stages.train.models.lavt.swin_blocks import embed_patches, merge_patches, swin_block

NUM_STAGES = 4

StageHook = Callable[[int, Tensor, tuple[int, int]], tuple[Tensor, Tensor]]
"""`hook(stage, tokens_BNC, (height, width)) -> (carried_BNC, output_BNC)`.

Called after a stage's blocks. `carried` goes on into the downsampling and the next stage, `output` becomes the
stage's feature map. The last stage's `carried` is not read.
"""


def call(function: Callable[..., Any], *arguments: Any) -> Any:
    """`function(*arguments)`."""
    return function(*arguments)


class SwinTrunk(nn.Module):
    """Swin Transformer (Liu et al., ICCV 2021) without classifier and without its last norm.

    embed_dim: channels of the first stage; each stage doubles them. depths, heads: blocks and attention heads of the
    four stages. window: side of the attention windows in positions. patch: side of a patch in pixels. drop_path:
    highest stochastic-depth rate, reached by the last block, rising linearly from 0.

    Windows are never shrunk: a map that is smaller than the window, or no multiple of it, is zero-padded after the
    block's norm, as in the original. Maps of odd side are zero-padded in patch merging.

    Raises InputError when a setting cannot make a Swin Transformer.
    """

    def __init__(
        self,
        *,
        embed_dim: int,
        depths: Sequence[int],
        heads: Sequence[int],
        window: int,
        patch: int = 4,
        drop_path: float = 0.0,
    ) -> None:
        super().__init__()
        if len(depths) != NUM_STAGES or len(heads) != NUM_STAGES:
            raise InputError(
                f"expected {NUM_STAGES} stages in swin_depths and swin_heads, found {list(depths)} and {list(heads)}"
            )
        for stage, num_heads in enumerate(heads):
            if (embed_dim * 2**stage) % num_heads:
                raise InputError(
                    f"expected heads that divide the {embed_dim * 2**stage} channels of stage {stage + 1}, "
                    f"found {num_heads}: change swin_heads or swin_embed_dim"
                )
        swin_config = SwinConfig(
            embed_dim=embed_dim,
            depths=list(depths),
            num_heads=list(heads),
            window_size=window,
            patch_size=patch,
            drop_path_rate=drop_path,
        )
        swin = SwinModel(swin_config, add_pooling_layer=False)
        self.channels: tuple[int, ...] = tuple(embed_dim * 2**stage for stage in range(NUM_STAGES))
        self.patch = patch
        # Any: modules of transformers, whose types we do not follow.
        self.embeddings: Any = swin.embeddings
        self.layers: Any = swin.encoder.layers
        self.swin_config = swin_config

    def forward(self, images: Tensor, hook: StageHook | None = None, run: Callable[..., Any] = call) -> list[Tensor]:
        """Feature maps of the four stages, finest first.

        images: float32 [B, 3, H, W], ImageNet-normalised, any size; H and W are zero-padded to multiples of the
        patch. Returns four float32 [B, C, H / (patch * 2 ** stage), W / (patch * 2 ** stage)], sides rounded up: the
        output of the stage's last block, or what `hook` makes of it. `run(function, *arguments)` runs every block and
        hook, e.g. with gradient checkpointing.
        """
        tokens, size = embed_patches(self.embeddings, images)
        features = []
        for stage, layer in enumerate(self.layers):
            for block in layer.blocks:
                tokens = run(swin_block, block, tokens, size)
            tokens, output = (tokens, tokens) if hook is None else run(hook, stage, tokens, size)
            features.append(output.transpose(1, 2).unflatten(2, size))
            if layer.downsample is not None:
                tokens, size = merge_patches(layer.downsample, tokens, size)
        return features
