import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from semires.pipeline.planning.fake_device import fake_device, to_fake
from semires.pipeline.planning.graph_walk import walk_backward
from semires.pipeline.planning.meter import StepMeter

CUDA = torch.device("cuda")


def test_to_fake__shapes_types_and_sharing_stay() -> None:
    with torch.device("meta"):
        network = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Linear(4, 4))
    network[2].weight = network[0].weight
    network[0].bias.requires_grad_(False)
    before = {name: (tensor.shape, tensor.dtype) for name, tensor in network.state_dict().items()}
    with fake_device(CUDA):
        to_fake(network, CUDA)
        found = network.state_dict()
        assert {name: (tensor.shape, tensor.dtype) for name, tensor in found.items()} == before
        assert {tensor.device.type for tensor in found.values()} == {"cuda"}
    assert network[2].weight is network[0].weight
    assert [parameter.requires_grad for parameter in network.parameters()] == [True, False, True, True, True]


def test_fake_device__holds_nothing() -> None:
    with fake_device(CUDA):
        enormous = torch.zeros(10**7, 10**7, device="cuda")
        assert (enormous @ enormous).shape == (10**7, 10**7)


def test_fake_device__attention_keeps_no_scores() -> None:
    """128 tokens of 8 channels: the scores are 16 times the queries, and neither a mask nor autocast brings them in."""

    def attend(mask: Tensor | None) -> int:
        query, key, value = (torch.zeros(4, 2, 128, 8, device="cuda", requires_grad=True) for _ in range(3))
        with StepMeter() as meter, torch.autocast("cuda", torch.bfloat16):
            attended = F.scaled_dot_product_attention(query, key, value, mask)
        assert (attended.shape, attended.dtype) == (query.shape, torch.bfloat16)
        return meter.live["activations"]

    scores = 4 * 2 * 128 * 128 * 2
    with fake_device(CUDA):
        masks = [None, torch.zeros(128, 128, device="cuda"), torch.ones(4, 1, 1, 128, dtype=torch.bool, device="cuda")]
        for mask in masks:
            assert attend(mask) < scores
        biases = torch.zeros(1, 2, 49, 49, device="cuda", requires_grad=True)
        tokens = torch.zeros(4, 2, 49, 8, device="cuda", requires_grad=True)
        walk_backward(lambda: F.scaled_dot_product_attention(tokens, tokens, tokens, biases).sum())
        assert biases.grad is not None
        assert biases.grad.shape == biases.shape


def test_fake_device__autocast_reaches_what_is_computed_again() -> None:
    linear = nn.Linear(8, 8)
    with fake_device(CUDA):
        to_fake(linear, CUDA)
        types = []

        def block(given: Tensor) -> Tensor:
            types.append(linear(given).dtype)
            return linear(given).relu()

        def loss() -> Tensor:
            with torch.autocast("cuda", torch.bfloat16):
                return checkpoint(block, torch.zeros(2, 8, device="cuda"), use_reentrant=False).float().sum()

        walk_backward(loss)
    assert types == [torch.bfloat16] * 2
    assert not torch.is_autocast_enabled("cuda")


def test_fake_device__of_the_cpu_is_the_cpus() -> None:
    attention = F.scaled_dot_product_attention
    with fake_device(torch.device("cpu")):
        assert F.scaled_dot_product_attention is attention
        assert torch.zeros(3).device.type == "cpu"
