"""PWA's weights at the worked values of the paper."""

import pytest
import torch

from semires.stages.data.errors import InputError
from semires.stages.train.labels.pwa import pwa_weights


def test_pwa_weights__worked_values() -> None:
    weights = pwa_weights(torch.tensor([[[0.5, 0.0], [1.0, 0.25]]]))
    assert weights.shape == (1, 2, 2)
    torch.testing.assert_close(weights[0, 0], torch.tensor([0.0384, 0.9386]), atol=5e-5, rtol=0)
    torch.testing.assert_close(weights[0, 1, 0], torch.tensor(0.9386), atol=5e-5, rtol=0)
    assert weights[0, 0, 0] < weights[0, 1, 1] < weights[0, 0, 1]


def test_pwa_weights__symmetric_about_mu_and_without_gradient() -> None:
    prob = torch.linspace(0, 1, 11).reshape(1, 1, 11).requires_grad_()
    weights = pwa_weights(prob)
    torch.testing.assert_close(weights, weights.flip(2))
    assert not weights.requires_grad
    moved = pwa_weights(torch.tensor([[[0.3, 0.5]]]), mu=0.3)
    assert moved[0, 0, 0] < moved[0, 0, 1]


def test_pwa_weights__matches_the_normal_density() -> None:
    prob = torch.rand(2, 3, 3, generator=torch.Generator().manual_seed(0))
    density = torch.distributions.Normal(0.4, 0.5).log_prob(prob).exp()
    torch.testing.assert_close(pwa_weights(prob, gamma=2.0, sigma2=0.25, mu=0.4), 2.0 - density)


def test_pwa_weights__rejects_no_variance_and_negative_weights() -> None:
    with pytest.raises(InputError, match="variance sigma2 above 0"):
        pwa_weights(torch.rand(1, 2, 2), sigma2=0.0)
    with pytest.raises(InputError, match="weights turn negative"):
        pwa_weights(torch.rand(1, 2, 2), gamma=1.2)
