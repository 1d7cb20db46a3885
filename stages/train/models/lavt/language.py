"""The text encoder of LAVT: BERT without its pooler, of which the optimiser may train only a part."""

from typing import Any

from torch import Tensor, nn
from transformers import BertConfig, BertModel

from semires.stages.data.errors import InputError


class TextEncoder(nn.Module):
    """BERT (Devlin et al., NAACL 2019); its last hidden states are LAVT's word features.

    vocab_size: rows of the word table. hidden, layers, heads, intermediate: width, depth, attention heads and MLP
    width. positions: rows of the position table, the longest expression in tokens. The dropouts are BERT's own, 0.1.

    Raises InputError when the heads do not divide the width.
    """

    def __init__(
        self, *, vocab_size: int, hidden: int, layers: int, heads: int, intermediate: int, positions: int = 512
    ) -> None:
        super().__init__()
        if hidden % heads:
            raise InputError(f"expected text_heads that divide text_hidden {hidden}, found {heads}: change one of them")
        self.bert_config = BertConfig(
            vocab_size=vocab_size,
            hidden_size=hidden,
            num_hidden_layers=layers,
            num_attention_heads=heads,
            intermediate_size=intermediate,
            max_position_embeddings=positions,
            attn_implementation="sdpa",  # takes the bool mask of `forward`
        )
        # Any: a model of transformers, whose types we do not follow.
        self.bert: Any = BertModel(self.bert_config, add_pooling_layer=False)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Word features float32 [B, T, hidden].

        input_ids: int64 [B, T]. attention_mask: int64 or bool [B, T], non-zero where there is a token. The features
        of padded tokens mean nothing.
        """
        # A mask with the axes of attention is taken as it is. Of one of [B, T] transformers would ask whether it is all
        # ones, which waits for the device.
        mask = attention_mask.bool()[:, None, None]
        return self.bert(input_ids=input_ids, attention_mask=mask).last_hidden_state

    def trained_parameters(self, *, num_layers: int, embeddings: bool) -> list[nn.Parameter]:
        """Parameters of the first `num_layers` layers, preceded by those of the embeddings where asked.

        LAVT trains the first ten of BERT's twelve layers and leaves embeddings and last layers as they were.
        """
        modules = [self.bert.embeddings] if embeddings else []
        modules += list(self.bert.encoder.layer)[:num_layers]
        return [parameter for module in modules for parameter in module.parameters()]
