# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
import pytest
import torch
from torch.nn import functional as F

from deal_ros.losses import ClippedCrossEntropy, ClippedCrossEntropyConfig, clipped_cross_entropy

SMALL = ClippedCrossEntropyConfig(patch=4)


def batch(seed=0, size=(10, 7), dtype=torch.float64, confident=True):
    generator = torch.Generator().manual_seed(seed)
    target = torch.randint(0, 3, (2, *size), generator=generator)
    logits = torch.randn(2, 3, *size, generator=generator, dtype=dtype)
    if confident:
        logits += 3 * F.one_hot(target, 3).permute(0, 3, 1, 2)
    target[0, 2:5, 1:4] = (target[0, 2:5, 1:4] + 1) % 3  # wrong labels
    target[1, :2] = 255
    return logits, target


def reference(logits, target, patch):
    loss = F.cross_entropy(logits, target, ignore_index=255, reduction="none")
    known = target != 255
    mean = loss[known].mean()
    capped = []
    height, width = target.shape[-2:]
    for y in range(0, height, patch):
        for x in range(0, width, patch):
            values, inside = loss[:, y : y + patch, x : x + patch], known[:, y : y + patch, x : x + patch]
            local = values[inside].mean() if inside.any() else mean
            capped.append(torch.minimum(values, torch.maximum(local, mean).detach())[inside])
    return torch.cat(capped).mean()


def test_plain_cross_entropy_until_the_student_has_learned():
    logits, target = batch(confident=False)
    assert float(F.cross_entropy(logits, target, ignore_index=255)) > 1.2
    torch.testing.assert_close(clipped_cross_entropy(logits, target), F.cross_entropy(logits, target, ignore_index=255))


@pytest.mark.parametrize("size", [(8, 8), (10, 7), (3, 3)])
def test_equals_an_independent_transcription(size):
    logits, target = batch(size=size)
    expected = reference(logits, target, 4)
    loss = clipped_cross_entropy(logits, target, config=SMALL)
    assert float(F.cross_entropy(logits, target, ignore_index=255)) < 1.2
    torch.testing.assert_close(loss, expected)


def test_hand_computed_value():
    """Three pixels of loss ~0 and one of loss L in one patch: the threshold is L/4, the result L/16."""
    logits = torch.zeros(1, 2, 2, 2, dtype=torch.float64)
    logits[:, 0] = 4.0
    target = torch.tensor([[[1, 0], [0, 0]]])
    low, high = F.softplus(torch.tensor(-4.0)).item(), F.softplus(torch.tensor(4.0)).item()
    threshold = (high + 3 * low) / 4
    expected = (threshold + 3 * low) / 4
    assert float(clipped_cross_entropy(logits, target)) == pytest.approx(expected, rel=1e-6)


def test_distrusted_pixels_get_no_gradient():
    logits, target = batch()
    logits.requires_grad_()
    loss = F.cross_entropy(logits, target, ignore_index=255, reduction="none").detach()
    clipped_cross_entropy(logits, target, config=SMALL).backward()
    strongest = loss.flatten().argmax()
    assert float(logits.grad.abs().sum(1).flatten()[strongest]) == 0
    assert float(logits.grad[1, :, :2].abs().sum()) == 0  # ignored


def test_counting_ignored_pixels_is_the_releases_way():
    logits, target = batch(confident=False)
    config = ClippedCrossEntropyConfig(count_ignored=True, start_loss=0)
    expected = F.cross_entropy(logits, target, ignore_index=255, reduction="none").mean()
    torch.testing.assert_close(clipped_cross_entropy(logits, target, config=config), expected)


def test_all_ignored_is_zero_with_a_graph():
    logits, target = batch()
    logits.requires_grad_()
    loss = clipped_cross_entropy(logits, torch.full_like(target, 255))
    assert float(loss.detach()) == 0
    assert (torch.autograd.grad(loss, logits)[0] == 0).all()


def test_gradcheck():
    logits, target = batch(size=(5, 4), confident=False)
    logits.requires_grad_()
    assert torch.autograd.gradcheck(lambda z: clipped_cross_entropy(z, target), logits)  # before clipping starts


def test_gradient_while_clipping_is_that_of_the_trusted_pixels_alone():
    """Thresholds are constants to the gradient, which finite differences cannot see."""
    logits, target = batch()
    logits.requires_grad_()
    loss = F.cross_entropy(logits, target, ignore_index=255, reduction="none")
    known = target != 255
    mean = loss[known].mean()
    trusted = torch.zeros_like(known)
    for y in range(0, 10, 4):
        for x in range(0, 7, 4):
            window = (..., slice(y, y + 4), slice(x, x + 4))
            trusted[window] = loss[window] <= torch.maximum(loss[window][known[window]].mean(), mean)
    assert 0 < int((~trusted & known).sum()) < 30
    (expected,) = torch.autograd.grad((loss * (trusted & known)).sum() / known.sum(), logits, retain_graph=True)
    (gradient,) = torch.autograd.grad(clipped_cross_entropy(logits, target, config=SMALL), logits)
    torch.testing.assert_close(gradient, expected)


def test_module_equals_function():
    logits, target = batch()
    assert torch.equal(ClippedCrossEntropy(SMALL)(logits, target), clipped_cross_entropy(logits, target, config=SMALL))


def test_invalid_input():
    logits, target = batch()
    with pytest.raises(ValueError, match="resize logits to the label map first"):
        clipped_cross_entropy(logits[..., 1:], target)
    with pytest.raises(ValueError, match=r"target must be int64 \(2, 10, 7\), got torch.uint8"):
        clipped_cross_entropy(logits, target.byte())
    with pytest.raises(ValueError, match="logits must be a floating tensor"):
        clipped_cross_entropy(logits[0], target)
    with pytest.raises(ValueError, match="patch >= 1"):
        ClippedCrossEntropyConfig(patch=0)
