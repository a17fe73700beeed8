# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Run by torchrun, or alone: all stages on miniature data. Arguments: output folder."""

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from engine_scenes import CLASSES, SIZE, MemoryDataset, cam_config, label_config, scenes, student_config

from deal_ros.datasets.miniature import miniature_sample
from deal_ros.engine.correct_labels import CorrectLabelsConfig, correct_labels
from deal_ros.engine.distributed import distributed
from deal_ros.engine.evaluate import evaluate_cam, evaluate_labels, evaluate_student
from deal_ros.engine.pseudo_label import pseudo_label
from deal_ros.engine.run_folder import RunFolder
from deal_ros.engine.train_cam import load_cam, train_cam
from deal_ros.engine.train_student import train_student
from deal_ros.students import read_bundle


def main(out: Path) -> None:
    torch.set_num_threads(1)
    data = scenes(10)
    with distributed("cpu") as ranks:
        for network, terms in (("timm", "fsl,deal"), ("weaktr", "deal"), ("seam", "fsl,deal")):
            config = cam_config(network, terms, steps=3)
            # What each rank draws or averages for itself cannot be the same: no dropout, no batch statistics.
            quiet = {"drop_path_rate": 0.0} if network == "weaktr" else {}
            quiet |= {"dropout": 0.0, "frozen_norm": True} if network == "seam" else {}
            optimization = replace(config.optimization, batchnorm="frozen", lr=1e-3)
            config = replace(config, arguments={**config.arguments, **quiet}, optimization=optimization)
            train_cam(data, out / network, config, ranks=ranks)
        labels = pseudo_label(data, out / "timm", out / "labels", label_config(), ranks=ranks)
        arguments = {"encoder": "test_vit", "drop_path": 0.0}
        config = student_config(steps=3, student="mask_transformer", arguments=arguments)
        config = replace(config, loader=replace(config.loader, cached_views=0))
        # AdamW's first steps go by the sign of a gradient, however small; SGD's by its size, which can be compared.
        config = replace(config, optimization=replace(config.optimization, optimizer="sgd", lr=0.1))
        config = replace(config, loss=replace(config.loss, absent=0.5))
        student = train_student(data, labels.folder, out / "student", config, ranks=ranks)
        tables = [miniature_sample([1, 2], CLASSES, seed=70 + number, size=SIZE) for number in range(3)]
        mixed = MemoryDataset([*data.samples[:6], *tables])
        seen = pseudo_label(mixed, out / "timm", out / "mixed", label_config(), ranks=ranks)
        correction = CorrectLabelsConfig(least=2, confidence=0.0, background_confidence=0.0)
        given: dict[str, Any] = {"teacher": student.bundle, "ranks": ranks}
        corrected = correct_labels(mixed, seen.folder, out / "corrected", correction, **given)
        correct_labels(mixed, corrected.folder, out / "checked", correction, images="one", **given)
        figures = {
            "labels": evaluate_labels(data, labels.folder, ranks=ranks),
            "student": evaluate_student(data, read_bundle(student.bundle)[0], ranks=ranks),
            "cam": evaluate_cam(data, load_cam(out / "timm")[0], label_config(), (48, 64), ranks=ranks),
        }
        RunFolder(out / "figures", {}, writer=ranks.first).finish(figures)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
