# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""L_ER, L_ECR and L_min of SEAM, with max_norm."""

import pytest
import torch
from torch.nn import functional as F

from deal_ros.losses import (
    EquivarianceConfig,
    EquivarianceLoss,
    MinPoolConfig,
    MinPoolLoss,
    equivariance_loss,
    equivariant_cross_loss,
    max_norm,
    min_pool_loss,
)


def branches(seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    draw = lambda *shape: torch.randn(*shape, generator=generator, dtype=dtype)  # noqa: E731
    labels = torch.tensor([[1, 0, 1], [0, 1, 0]])
    return draw(2, 3, 8, 8), draw(2, 3, 4, 4), draw(2, 4, 8, 8), draw(2, 4, 4, 4), labels


def test_max_norm_by_hand():
    maps = torch.tensor([[[[-3.0, 1.0, 2.0, 5.0]]]])
    expected = torch.tensor([[[[0.0, 1.0, 2.0, 5.0]]]])
    torch.testing.assert_close(max_norm(maps), (expected - 1e-5).relu() / (5 + 1e-5))
    assert float(max_norm(-maps.abs()).abs().max()) == 0


def test_equivariance_by_hand():
    large = torch.tensor([[[[0.0, 4.0], [4.0, 4.0]]]])
    small = torch.tensor([[[[0.0, 4.0], [0.0, 4.0]]]])
    loss = equivariance_loss(large, small, torch.ones(1, 1))
    assert float(loss) == pytest.approx(0.25, abs=1e-4)  # one cell of four differs by 1
    assert float(equivariance_loss(large, small, torch.zeros(1, 1))) == 0


def test_an_equivariant_network_pays_nothing():
    small = torch.rand(1, 2, 5, 5, dtype=torch.float64)
    large = F.interpolate(small, (9, 9), mode="bilinear", align_corners=True)  # keeps minimum and maximum
    assert float(equivariance_loss(large, small, torch.ones(1, 2))) < 1e-6


def reference_cross(raw_large, raw_small, refined_large, refined_small, labels, share=0.2):
    def scale(maps, y):
        maps = F.interpolate(max_norm(maps), raw_small.shape[-2:], mode="bilinear", align_corners=True)
        return maps * y[:, :, None, None]

    def only_max(foreground):
        out = torch.cat([1 - foreground.amax(1, keepdim=True), foreground], 1)
        for b in range(len(out)):
            for cell in range(out[0, 0].numel()):
                column = out[b].flatten(1)[1:, cell]
                column[column != column.max()] = 0
        return out

    y = labels.to(raw_large)
    with_bg = torch.cat([torch.ones_like(y[:, :1]), y], 1)
    total = 0.0
    for other, refined in (
        (scale(raw_small, y), scale(refined_large, with_bg)),
        (scale(raw_large, y), scale(refined_small, with_bg)),
    ):
        difference = (only_max(other.detach().clone()) - refined).abs().flatten(1)
        count = int(difference.shape[1] * share)
        total = total + difference.sort(1, descending=True).values[:, :count].mean()
    return total


def test_cross_loss_equals_an_independent_transcription():
    arguments = branches()
    torch.testing.assert_close(equivariant_cross_loss(*arguments), reference_cross(*arguments))


def test_cross_loss_does_not_move_the_other_branch():
    raw_large, raw_small, refined_large, refined_small, labels = branches()
    for tensor in (raw_large, raw_small, refined_large, refined_small):
        tensor.requires_grad_()
    loss = equivariant_cross_loss(raw_large, raw_small, refined_large, refined_small, labels)
    gradients = torch.autograd.grad(loss, (raw_large, raw_small, refined_large, refined_small), allow_unused=True)
    assert gradients[0] is None
    assert gradients[1] is None
    assert all(float(gradient.abs().sum()) > 0 for gradient in gradients[2:])


def test_gradcheck():
    raw_large, raw_small, refined_large, refined_small, labels = branches()
    raw_large.requires_grad_()
    refined_small.requires_grad_()
    assert torch.autograd.gradcheck(lambda r: equivariance_loss(r, raw_small, labels), raw_large)
    assert torch.autograd.gradcheck(
        lambda r: equivariant_cross_loss(raw_large.detach(), raw_small, refined_large, r, labels), refined_small
    )
    assert torch.autograd.gradcheck(lambda r: min_pool_loss(r, labels), raw_large)


def test_min_pool_by_hand_counts_absent_classes_as_zero():
    maps = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]], [[9.0, 9.0], [9.0, 9.0]]]])
    assert float(min_pool_loss(maps, torch.tensor([[1, 0]]))) == 1.0
    assert float(min_pool_loss(-maps, torch.tensor([[1, 0]]))) == 0.0
    assert float(min_pool_loss(maps, torch.tensor([[1, 1]]), config=MinPoolConfig(share=1.0))) == 9.0


def test_modules_equal_functions():
    arguments = branches()
    raw_large, raw_small, _, _, labels = arguments
    config = EquivarianceConfig(er_weight=2.0, ecr_weight=0.5)
    expected = 2 * equivariance_loss(raw_large, raw_small, labels) + 0.5 * equivariant_cross_loss(*arguments)
    torch.testing.assert_close(EquivarianceLoss(config)(*arguments), expected)
    assert torch.equal(MinPoolLoss()(raw_large, labels), min_pool_loss(raw_large, labels))


def test_invalid_input():
    raw_large, raw_small, refined_large, refined_small, labels = branches()
    with pytest.raises(ValueError, match=r"labels must be multi-hot \(2, 3\) for this raw_large"):
        equivariance_loss(raw_large, raw_small, labels[:, :2])
    with pytest.raises(ValueError, match="refined_large"):
        equivariant_cross_loss(raw_large, raw_small, raw_large, refined_small, labels)
    with pytest.raises(ValueError, match="maps must be a floating tensor"):
        min_pool_loss(raw_large[0], labels)
    with pytest.raises(ValueError, match="share must be in"):
        MinPoolConfig(share=0)
    with pytest.raises(ValueError, match="hardest_share in"):
        EquivarianceConfig(hardest_share=2)
    with pytest.raises(ValueError, match="weights must be >= 0"):
        EquivarianceConfig(er_weight=-1)
