# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Dense CRF on CAMs, optional: needs pydensecrf2."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class CrfConfig:
    """Energies of a fully connected CRF.

    Args:
        unary: ``softmax``: probabilities from the scores; ``labels``: argmax labels trusted with ``label_trust``.
        label_trust: probability of the argmax label, (0, 1).
        background: score of background, a constant in (0, 1) ...
        background_power: ... or (1 - max)^power where this is positive, as SEAM has it.
        gaussian_sxy, gaussian_compat: smoothness kernel, pixels and weight.
        bilateral_sxy, bilateral_srgb, bilateral_compat: appearance kernel, pixels, colour steps of 255, and weight.
        iterations: mean-field steps.

    Raises:
        ValueError: if a field is outside its range.
    """

    unary: Literal["softmax", "labels"]
    label_trust: float = 0.7
    background: float = 0.5
    background_power: float = 0.0
    gaussian_sxy: float = 3.0
    gaussian_compat: float = 3.0
    bilateral_sxy: float = 80.0
    bilateral_srgb: float = 13.0
    bilateral_compat: float = 10.0
    iterations: int = 10

    def __post_init__(self) -> None:
        """Check names and ranges."""
        if self.unary not in ("softmax", "labels"):
            raise ValueError(f"unary must be softmax or labels, got {self.unary!r}")
        if not 0 < self.label_trust < 1 or not 0 < self.background < 1 or self.background_power < 0:
            raise ValueError(
                f"label_trust and background must be in (0, 1) and background_power >= 0, got {self.label_trust},"
                f" {self.background} and {self.background_power}"
            )
        if min(self.gaussian_sxy, self.bilateral_sxy, self.bilateral_srgb) <= 0 or self.iterations < 1:
            raise ValueError(f"kernel sizes and iterations must be positive, got {self}")


CRF_PRESETS: dict[str, CrfConfig] = {
    "seam": CrfConfig("softmax", background_power=4.0),
    "weaktr_voc": CrfConfig(
        "labels", background=0.43, gaussian_sxy=4, bilateral_sxy=83, bilateral_srgb=5, bilateral_compat=3
    ),
    "weaktr_coco": CrfConfig("labels", background=0.42, bilateral_sxy=50, bilateral_srgb=5, bilateral_compat=10),
}
"""Published settings, read in YudeWang/SEAM (tool/imutils.py, infer_SEAM.py) and hustvl/WeakTr (tool/imutils.py)."""


def crf_cam(
    cam: NDArray[np.float32], rgb: NDArray[np.uint8], config: CrfConfig = CRF_PRESETS["seam"]
) -> NDArray[np.float32]:
    """Refine CAMs of the classes in view with a dense CRF.

    The result is scaled so that the threshold 0.5 gives the CRF's own labels: P(class)/(P(class) + P(background)).

    Source: Krähenbühl and Koltun, Efficient Inference in Fully Connected CRFs with Gaussian Edge Potentials, 2011.

    Args:
        cam: float (C, H, W) in [0, 1], present classes only.
        rgb: uint8 (H, W, 3).
        config: see :class:`CrfConfig`.

    Returns:
        float32 (C, H, W) in [0, 1].

    Raises:
        ImportError: if pydensecrf2 is not installed.
        ValueError: if the sizes differ.
    """
    if cam.ndim != 3 or cam.shape[1:] != rgb.shape[:2] or rgb.dtype != np.uint8:
        raise ValueError(f"cam (C, H, W) and rgb uint8 (H, W, 3) must fit, got {cam.shape} and {rgb.dtype} {rgb.shape}")
    if len(cam) == 0:
        return cam.astype(np.float32)
    dense = _densecrf()
    background = np.full_like(cam[:1], config.background)
    if config.background_power > 0:
        background = (1 - cam.max(0, keepdims=True)) ** config.background_power
    scores = np.concatenate([background, cam]).astype(np.float32)
    classes, height, width = scores.shape
    model = dense.densecrf.DenseCRF2D(width, height, classes)
    if config.unary == "labels":
        labels = scores.argmax(0).astype(np.int32)
        unary = dense.utils.unary_from_labels(labels, classes, gt_prob=config.label_trust, zero_unsure=False)
    else:
        # The release hands its scores over as they are, without making them sum to one.
        unary = -np.log(np.clip(scores, 1e-5, 1.0)).reshape(classes, -1)
    model.setUnaryEnergy(np.ascontiguousarray(unary, np.float32))
    model.addPairwiseGaussian(sxy=config.gaussian_sxy, compat=config.gaussian_compat)
    model.addPairwiseBilateral(
        sxy=config.bilateral_sxy,
        srgb=config.bilateral_srgb,
        rgbim=np.ascontiguousarray(rgb),
        compat=config.bilateral_compat,
    )
    posterior = np.asarray(model.inference(config.iterations), np.float32).reshape(classes, height, width)
    return posterior[1:] / np.maximum(posterior[1:] + posterior[:1], 1e-12)


def _densecrf() -> Any:
    try:
        import pydensecrf
        import pydensecrf.densecrf
        import pydensecrf.utils
    except ImportError as error:
        raise ImportError(
            "refine='crf' needs pydensecrf2 (pip install pydensecrf2); or use refine='rgbd'", name="pydensecrf"
        ) from error
    return pydensecrf
