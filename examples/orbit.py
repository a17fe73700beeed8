# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Once around a table that a model has never seen, frame by frame as on board: image beside mask, as a moving picture.

python examples/orbit.py models/tabletop [PICTURE.webp] [SCENE]
"""

import sys
from itertools import islice
from pathlib import Path

import numpy as np
from PIL import Image

from deal_ros.datasets.rendered import RenderConfig, planned_scenes
from deal_ros.metrics import SegmentationMetrics
from deal_ros.scenes import SceneRenderer
from deal_ros.students import Predictor
from deal_ros.visualization import overlay

FRAMES, FRAME_MS = 48, 125


def main(bundle="models/tabletop", out="orbit.webp", scene="0", frames=FRAMES, size=(240, 320)):
    predictor = Predictor(bundle)
    config = RenderConfig(classes=predictor.classes, height=size[0], width=size[1])
    pictures, metrics = [], SegmentationMetrics(len(predictor.classes))
    with SceneRenderer(size, shadows=True) as renderer:
        renderer.load(next(islice(planned_scenes(config, "tabletop", "test"), int(scene), None)))
        for frame in range(frames):
            sample = renderer.render(frame / frames)
            mask = predictor.predict(sample.rgb).mask
            metrics.update(mask, sample.mask)
            pictures.append(np.hstack([sample.rgb, overlay(sample.rgb, mask, predictor.classes)]))
    print(f"mIoU over the turn {metrics.miou():.1%}, image labels not told")
    first, *others = map(Image.fromarray, pictures)
    first.save(Path(out), save_all=True, append_images=others, duration=FRAME_MS, loop=0, quality=60, method=6)


if __name__ == "__main__":
    main(*sys.argv[1:4])
