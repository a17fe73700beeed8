# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""An unlabelled pixel may be anything that is in view, and nothing else."""

import pytest
import torch

from deal_ros.losses import absent_class_loss


def test_it_is_the_negative_log_of_what_is_left_to_background_and_the_classes_in_view():
    logits = torch.randn(2, 4, 3, 5, generator=torch.Generator().manual_seed(0)) * 3
    labels = torch.tensor([[1.0, 0.0, 1.0], [0.0, 0.0, 0.0]])
    likely = logits.softmax(1)
    expected = -torch.stack([likely[0, [0, 1, 3]].sum(0), likely[1, 0]]).log()
    torch.testing.assert_close(absent_class_loss(logits, labels), expected)


def test_it_pushes_absent_classes_down_and_prefers_none_of_the_others():
    logits = torch.zeros(1, 4, 1, 1, requires_grad=True)
    absent_class_loss(logits, torch.tensor([[1, 0, 1]])).sum().backward()
    background, first, absent, last = logits.grad.flatten().tolist()
    assert absent > 0
    assert background == first == last < 0


def test_where_every_class_may_be_in_view_there_is_nothing_to_learn():
    logits = torch.randn(1, 3, 4, 4, requires_grad=True)
    loss = absent_class_loss(logits, torch.ones(1, 2))
    loss.sum().backward()
    torch.testing.assert_close(loss.detach(), torch.zeros(1, 4, 4), atol=1e-6, rtol=0)
    assert logits.grad.abs().max() < 1e-6


def test_it_stays_finite_where_an_absent_class_is_certain():
    logits = torch.tensor([0.0, 200.0, 0.0]).view(1, 3, 1, 1)
    assert absent_class_loss(logits, torch.tensor([[0, 1]])).item() == pytest.approx(200, rel=0.01)


def test_shapes_that_do_not_fit_are_named():
    with pytest.raises(ValueError, match=r"labels \(B, K\)"):
        absent_class_loss(torch.zeros(1, 4, 2, 2), torch.ones(1, 4))
