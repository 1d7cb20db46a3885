import dataclasses

import pytest
import torch

from semires.stages.train.models.lavt.parameter_groups import parameter_groups


@pytest.mark.parametrize("embeddings", [True, False])
def test_parameter_groups__each_parameter_once_or_frozen(make_lavt, tiny_config, embeddings):
    lavt = make_lavt(dataclasses.replace(tiny_config, train_text_embeddings=embeddings))
    groups = parameter_groups(lavt, weight_decay=0.01, learning_rate=5e-5, trunk_rate=0.1)
    assert [group["weight_decay"] for group in groups] == [0.01, 0.0, 0.01, 0.0]
    assert [group["lr"] for group in groups] == [5e-5 * 0.1, 5e-5 * 0.1, 5e-5, 5e-5]
    grouped = [id(p) for group in groups for p in group["params"]]
    assert len(grouped) == len(set(grouped))

    names = {id(p): name for name, p in lavt.named_parameters()}
    frozen = {name for p, name in names.items() if p not in set(grouped)}
    assert frozen == {name for name, p in lavt.named_parameters() if not p.requires_grad}
    prefixes = ("text.bert.encoder.layer.2.",) if embeddings else ("text.bert.encoder.layer.2.", "text.bert.embeddings")
    assert frozen == {name for name in names.values() if name.startswith(prefixes)}

    # LAVT's own rule, by name, for its backbone: trunk and fusion.
    backbone = {name for name in names.values() if name.startswith(("visual.", "fusion."))}
    expected = {name for name in backbone if "norm" in name or "relative_position_bias_table" in name}
    assert {names[id(p)] for group in groups[1::2] for p in group["params"]} == expected
    of_trunk = {name for name in names.values() if name.startswith("visual.")}
    assert {names[id(p)] for group in groups[:2] for p in group["params"]} == of_trunk
    torch.optim.AdamW(groups)
