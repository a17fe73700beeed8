# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
import cv2
import pytest
import torch

from deal_ros.filters import sobel_gradients, sobel_magnitude


def test_agrees_with_opencv():
    maps = torch.rand(1, 1, 9, 13, generator=torch.Generator().manual_seed(0))
    gx, gy = sobel_gradients(maps, scale=1.0)
    image = maps[0, 0].numpy()
    for ours, (dx, dy) in ((gx, (1, 0)), (gy, (0, 1))):
        theirs = cv2.Sobel(image, cv2.CV_32F, dx, dy, ksize=3, borderType=cv2.BORDER_REPLICATE)
        torch.testing.assert_close(ours[0, 0], torch.from_numpy(theirs), atol=1e-5, rtol=1e-5)


def test_strongest_possible_edge_of_a_unit_map():
    """Exhaustive over all binary 3×3 patches: convexity puts the maximum at a corner of the cube."""
    patches = torch.tensor([[(n >> i) & 1 for i in range(9)] for n in range(512)], dtype=torch.float64)
    centre = sobel_magnitude(patches.view(512, 1, 3, 3), scale=1.0)[:, 0, 1, 1]
    assert float(centre.max()) == pytest.approx(20**0.5, abs=1e-6)


def test_flat_map_has_a_finite_zero_gradient():
    flat = torch.full((1, 1, 5, 5), 0.3, requires_grad=True)
    sobel_magnitude(flat).sum().backward()
    assert torch.equal(flat.grad, torch.zeros_like(flat))


def test_gradcheck():
    maps = torch.rand(2, 2, 4, 5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(sobel_magnitude, maps)


def test_channels_do_not_mix():
    maps = torch.rand(2, 3, 6, 7)
    together = sobel_magnitude(maps)
    apart = torch.cat([sobel_magnitude(maps[:, k : k + 1]) for k in range(3)], dim=1)
    torch.testing.assert_close(together, apart)


@pytest.mark.parametrize("bad", [torch.zeros(3, 3), torch.zeros(1, 1, 3, 3, dtype=torch.int32)])
def test_refuses_other_tensors(bad):
    with pytest.raises(ValueError, match=r"floating tensor \(B, C, H, W\)"):
        sobel_magnitude(bad)
