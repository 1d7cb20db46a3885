"""Which of LAVT's parameters are trained, and which of them decay."""

from typing import TYPE_CHECKING, Any

from torch import nn

if TYPE_CHECKING:
    from semires.stages.train.models.lavt.network import Lavt


def parameter_groups(
    lavt: "Lavt", *, weight_decay: float, learning_rate: float, trunk_rate: float = 1.0
) -> list[dict[str, Any]]:
    """Groups for AdamW: what LAVT decays, and its norms and Swin's position tables without decay.

    Swin's two groups learn with `trunk_rate` times `learning_rate`, the other two with `learning_rate`.

    Decayed: the rest of trunk and fusion, the decoder, and the trained part of BERT (its norms too, as in LAVT).
    Neither: BERT's last layers, and its embeddings unless `train_text_embeddings`; those get
    `requires_grad_(False)`, so there is nothing to compute or to average for them. Each dict has `params`,
    `weight_decay` and `lr`; the order of the parameters is fixed, so an optimizer's saved state fits again.
    """
    trunk_decayed, trunk_plain = _split_by_decay(lavt.visual)
    decayed, plain = _split_by_decay(lavt.fusion)
    decayed += lavt.decoder.parameters()
    decayed += lavt.text.trained_parameters(
        num_layers=lavt.config.trained_text_layers, embeddings=lavt.config.train_text_embeddings
    )
    trained = {id(parameter) for parameter in (*trunk_decayed, *trunk_plain, *decayed, *plain)}
    for parameter in lavt.parameters():
        parameter.requires_grad_(id(parameter) in trained)
    return [
        {"params": trunk_decayed, "weight_decay": weight_decay, "lr": learning_rate * trunk_rate},
        {"params": trunk_plain, "weight_decay": 0.0, "lr": learning_rate * trunk_rate},
        {"params": decayed, "weight_decay": weight_decay, "lr": learning_rate},
        {"params": plain, "weight_decay": 0.0, "lr": learning_rate},
    ]


def _split_by_decay(part: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """Parameters of trunk or fusion: those that are decayed, and those that are not."""
    decayed: list[nn.Parameter] = []
    plain: list[nn.Parameter] = []
    for module in part.modules():
        for name, parameter in module.named_parameters(recurse=False):
            is_plain = isinstance(module, nn.LayerNorm) or name == "relative_position_bias_table"
            (plain if is_plain else decayed).append(parameter)
    return decayed, plain
