# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""A recipe: one YAML file that says a whole experiment, from data to report."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from deal_ros.config import ConfigError, from_mapping, load_yaml
from deal_ros.datasets.base import SampleDataset
from deal_ros.engine.correct_labels import CorrectLabelsConfig
from deal_ros.engine.evaluate import EvaluateConfig
from deal_ros.engine.pseudo_label import PseudoLabelStageConfig
from deal_ros.engine.train_cam import TrainCamConfig
from deal_ros.engine.train_student import TrainStudentConfig
from deal_ros.installed import config_folder

Layout = Literal["store", "rendered", "voc", "coco", "bop"]


@dataclass(frozen=True)
class RecipeData:
    """Which parts of a data set are used for what. Each is the options of ``datasets.open_dataset``.

    Args:
        layout: what lies in the data folder.
        train: images to learn from: their image labels only.
        validation: held-out images whose image labels say how well the classifier generalises; ``None`` holds out
            ``holdout`` of the training sequences.
        seeds: images on which activations and label maps are compared with true masks; ``None`` takes ``train``.
        test: images on which the student is compared with true masks, by name of the figure.
        holdout: share of training samples to hold out, in whole sequences, where ``validation`` is not given.
    """

    layout: Layout = "store"
    train: dict = field(default_factory=dict)
    validation: dict | None = None
    seeds: dict | None = None
    test: dict = field(default_factory=dict)
    holdout: float = 0.0

    def __post_init__(self) -> None:
        """Check the ranges."""
        if not 0 <= self.holdout < 1:
            raise ValueError(f"holdout must be in [0, 1), got {self.holdout}")


@dataclass(frozen=True)
class Recipe:
    """A whole experiment.

    Args:
        name: short, for reports.
        data: what it runs on.
        train_cam: stage 1.
        pseudo_label: stage 2.
        correct_labels: stage 2b, see :mod:`deal_ros.engine.teachers`; ``None`` leaves it out.
        train_student: stage 3.
        evaluate: stage 4.
        seeds: the experiment is repeated with each.
        baseline: also train the CAM network without extra losses, and show both side by side.
        smoke: settings that replace others under ``--smoke``, so that the recipe runs in a minute on anything.
    """

    name: str
    data: RecipeData = field(default_factory=RecipeData)
    train_cam: TrainCamConfig = field(default_factory=TrainCamConfig)
    pseudo_label: PseudoLabelStageConfig = field(default_factory=PseudoLabelStageConfig)
    correct_labels: CorrectLabelsConfig | None = None
    train_student: TrainStudentConfig = field(default_factory=TrainStudentConfig)
    evaluate: EvaluateConfig = field(default_factory=EvaluateConfig)
    seeds: tuple[int, ...] = (0,)
    baseline: bool = False
    smoke: dict = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check the seeds."""
        if not self.seeds or len(set(self.seeds)) != len(self.seeds) or min(self.seeds) < 0:
            raise ValueError(f"seeds must be different numbers >= 0, at least one, got {self.seeds}")

    def seeded(self, seed: int) -> Recipe:
        """Return the recipe with ``seed`` in every stage."""
        cam = replace(self.train_cam, optimization=replace(self.train_cam.optimization, seed=seed))
        student = replace(self.train_student, optimization=replace(self.train_student.optimization, seed=seed))
        return replace(self, train_cam=cam, train_student=student, seeds=(seed,))


@dataclass(frozen=True)
class ExperimentData:
    """The opened parts of a data set, see :class:`RecipeData`."""

    train: SampleDataset
    validation: SampleDataset | None
    seeds: SampleDataset
    test: Mapping[str, SampleDataset]


def load_recipe(path: str | Path, *, smoke: bool = False, changes: Mapping[str, Any] | None = None) -> Recipe:
    """Read a recipe.

    Args:
        path: YAML file.
        smoke: apply its ``smoke`` settings.
        changes: nested settings that replace others, after that.

    Raises:
        ConfigError: if it is not there or cannot be read, or a setting is unknown or refused.
    """
    if not Path(path).exists():
        ours = ", ".join(sorted(file.stem for file in (config_folder() / "recipes").glob("*.yaml")))
        raise ConfigError(
            f"{path}: no such recipe; give a file, or the name of one that comes with the package: {ours}"
        )
    values = load_yaml(path)
    if smoke:
        changed = values.get("smoke") or {}
        if not isinstance(changed, Mapping):
            raise ConfigError(f"{path}.smoke: must be a mapping, got {changed!r:.80}")
        values = merged(values, changed)
    return from_mapping(Recipe, merged(values, changes or {}), str(path))


def merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Put the leaves of ``changes`` into ``base``, as new mappings.

    Example:
        >>> merged({"a": {"b": 1, "c": 2}}, {"a": {"c": 3}})
        {'a': {'b': 1, 'c': 3}}
    """
    result = dict(base)
    for key, value in changes.items():
        old = result.get(key)
        nested = isinstance(value, Mapping) and isinstance(old, Mapping) and value
        result[key] = merged(old, value) if nested else value  # type: ignore[arg-type]
    return result


def check_layout(data: RecipeData, path: str | Path) -> None:
    """Raise ``ConfigError`` if another kind of data lies in ``path`` than the recipe is for."""
    from deal_ros.datasets import recognize

    found = recognize(path) if Path(path).is_dir() else None
    if found is not None and found != data.layout:
        raise ConfigError(
            f"{path}: must be {data.layout} data for this recipe, got {found}; choose a recipe for {found}"
        )


def open_data(data: RecipeData, path: str | Path, train: SampleDataset) -> ExperimentData:
    """Open the parts of the data set in ``path``.

    Args:
        data: which parts.
        path: the data set's folder.
        train: the training part.

    Raises:
        DatasetError: if a part is missing.
    """
    from deal_ros.datasets import open_dataset
    from deal_ros.datasets.views import split_by_sequence

    learned, validation = train, None
    if data.validation is not None:
        validation = open_dataset(path, **data.validation)
    else:
        learned, validation = split_by_sequence(train, data.holdout)
    seeds = train if data.seeds is None else open_dataset(path, **data.seeds)
    test = {name: open_dataset(path, **(options or {})) for name, options in data.test.items()}
    return ExperimentData(learned, validation, seeds, test)
