# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""DEAL in a training loop that is not ours: a multi-label timm classifier, trained with Adam on RGB-D frames.

python examples/deal_in_a_timm_classifier.py DATASET [--model resnet18] [--steps 200] [--weight 0.2]
"""

import argparse

import torch
from torch.nn import functional as F
from torch.utils.data import DataLoader

from deal_ros.backbones import import_timm
from deal_ros.datasets.open import open_dataset
from deal_ros.losses import RECOMMENDED, DepthEdgeAlignmentLoss  # DEAL


def collate(samples, classes):
    rgb = torch.stack([torch.from_numpy(sample.rgb) for sample in samples]).permute(0, 3, 1, 2) / 127.5 - 1
    depth_m = torch.stack([torch.from_numpy(sample.depth_m) for sample in samples])
    labels = torch.tensor([[float(name in sample.labels) for name in classes] for sample in samples])
    return rgb, depth_m, labels


def class_maps(model, rgb):
    """What global average pooling and the linear classifier would average, before it is averaged: (B, K, h, w)."""
    linear = model.get_classifier()
    return F.conv2d(model.forward_features(rgb), linear.weight[:, :, None, None], linear.bias)


def train(dataset, model_name="resnet18", steps=200, weight=0.2, batch_size=8, seed=0):
    torch.manual_seed(seed)
    model = import_timm().create_model(model_name, num_classes=len(dataset.classes))
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-4)
    align = DepthEdgeAlignmentLoss(RECOMMENDED)  # DEAL
    batches = DataLoader(dataset, batch_size, shuffle=True, collate_fn=lambda s: collate(s, dataset.classes))
    log = []
    while len(log) < steps:
        for rgb, depth_m, labels in batches:
            cam = class_maps(model, rgb)
            classification = F.multilabel_soft_margin_loss(cam.mean((2, 3)), labels)
            edge = align(cam, depth_m, labels)  # DEAL
            optimizer.zero_grad()
            (classification + weight * edge).backward()
            optimizer.step()
            log.append((classification.item(), edge.item()))
    return model, log[:steps]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("dataset")
    parser.add_argument("--model", default="resnet18")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--weight", type=float, default=0.2)
    arguments = parser.parse_args()
    history = train(open_dataset(arguments.dataset), arguments.model, arguments.steps, arguments.weight)[1]
    for step in range(0, len(history), 10):
        print("step {}: classification {:.3f}, depth edges {:+.3f}".format(step, *history[step]))
