# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
import pytest
import torch
from torch.nn import functional as F

from deal_ros.losses import ImportanceSamplingConfig, ImportanceSamplingLoss, importance_sampling_loss


def maps(seed=0, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(2, 3, 4, 5, generator=generator, dtype=dtype), torch.tensor([[1, 0, 1], [0, 1, 0]])


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def test_smoke_and_gradient_reaches_sampled_pixels_only():
    raw, labels = maps()
    raw.requires_grad_()
    loss = importance_sampling_loss(raw, labels, config=ImportanceSamplingConfig(samples=1), generator=seeded())
    loss.backward()
    assert float(loss.detach()) > 0
    assert (raw.grad.flatten(2) != 0).sum(-1).tolist() == [[1, 1, 1], [1, 1, 1]]


def test_hand_computed_value_on_constant_maps():
    """Wherever one draws on a constant map, the logit is the same: the loss is known."""
    raw = torch.tensor([[2.0, -1.0]])[..., None, None].expand(1, 2, 4, 4)
    expected = (F.softplus(torch.tensor(-2.0)) + F.softplus(torch.tensor(-1.0))) / 2
    loss = importance_sampling_loss(raw, torch.tensor([[1, 0]]))
    torch.testing.assert_close(loss, expected)


def test_equals_multilabel_soft_margin_of_each_draw():
    raw, labels = maps()
    config = ImportanceSamplingConfig(samples=7)
    flat = raw.flatten(2).flatten(0, 1)
    drawn = torch.multinomial(flat.sigmoid() + 1e-5, 7, replacement=True, generator=seeded(3))
    logits = flat.gather(1, drawn).view(2, 3, 7)
    expected = torch.stack([F.multilabel_soft_margin_loss(logits[..., n], labels.float()) for n in range(7)]).mean()
    torch.testing.assert_close(importance_sampling_loss(raw, labels, config=config, generator=seeded(3)), expected)


def test_drawing_follows_the_activation():
    """A map at ±20 has all its probability on the bright half: absent class, so the loss is 20."""
    raw = torch.full((1, 1, 2, 50), -20.0)
    raw[..., 25:] = 20
    loss = importance_sampling_loss(raw, torch.zeros(1, 1), config=ImportanceSamplingConfig(samples=500))
    assert float(loss) == pytest.approx(20, abs=0.2)


def test_gradcheck():
    raw, labels = maps(dtype=torch.float64)
    raw.requires_grad_()
    assert torch.autograd.gradcheck(lambda r: importance_sampling_loss(r, labels, generator=seeded()), raw)


def test_module_equals_function_and_seed_decides():
    raw, labels = maps()
    config = ImportanceSamplingConfig(samples=3)
    one = ImportanceSamplingLoss(config)(raw, labels, seeded(5))
    assert torch.equal(one, importance_sampling_loss(raw, labels, config=config, generator=seeded(5)))
    assert not torch.equal(one, importance_sampling_loss(raw, labels, config=config, generator=seeded(6)))


def test_invalid_input():
    raw, labels = maps()
    with pytest.raises(ValueError, match=r"labels must be multi-hot \(2, 3\)"):
        importance_sampling_loss(raw, labels[:, :2])
    with pytest.raises(ValueError, match="raw must be a floating tensor"):
        importance_sampling_loss(raw[0], labels)
    with pytest.raises(ValueError, match="must be positive"):
        ImportanceSamplingConfig(samples=0)
