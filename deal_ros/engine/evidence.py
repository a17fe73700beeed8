# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The evidence file: which experiments are needed to say whether DEAL helps, as a grid of named cells.

A cell is one network, one row of losses, one condition of depth, one change of a setting and one seed. Everything is
measured and chosen on the validation split; see :mod:`deal_ros.engine.evidence_run` for how it is carried out.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import Any, Literal

from deal_ros.config import ConfigError, from_mapping, load_yaml, to_mapping
from deal_ros.datasets.rendered import RenderConfig
from deal_ros.engine.objective import CamLossConfig, parse_terms
from deal_ros.engine.recipe import Recipe, merged
from deal_ros.engine.train_cam import TrainCamConfig
from deal_ros.filters import DepthNoiseConfig
from deal_ros.filters.noise import realsense_like

DEFAULT = "default"
"""The cell in which nothing is varied."""
CLEAN = "clean"
TRAIN_SAMPLES, FORGOTTEN_LABELS = TRAINING_CHANGES = ("train_samples", "forgotten_labels")
"""What an ablation may change beside the recipe: how many images are labelled, and what share of names is left out."""


@dataclass(frozen=True)
class NetworkRow:
    """A CAM network.

    Args:
        recipe: the settings that its cells begin with; a path relative to the evidence file.
        changes: of that recipe.
        choices: name → changes of the recipe. Each row of losses takes the one with the best CAM mIoU on the
            validation split (swept threshold, mean over domains and ``choice_seeds``).
    """

    recipe: Path
    changes: dict = field(default_factory=dict)
    choices: dict = field(default_factory=dict)


@dataclass(frozen=True)
class LossRow:
    """One row of the table.

    Args:
        changes: of the recipe, ``train_cam.losses.terms`` first of all.
        tuned: the row whose choice on the validation split this one uses; empty is its own. A control must differ from
            what it controls in one thing only.
        supervision: ``image labels``; or ``true masks``, only a student, trained on masks: the upper bound.
    """

    changes: dict = field(default_factory=dict)
    tuned: str = ""
    supervision: Literal["image labels", "true masks"] = "image labels"


@dataclass(frozen=True)
class DepthCondition:
    """What the depth of every stage is like: of training, of refinement and of the truth-free threshold.

    Args:
        strength: of :func:`~deal_ros.filters.noise.realsense_like`.
        noise: single effects instead.
        shuffled: in training, every image gets the depth of another one. Refinement keeps its own, so that the
            difference to the clean row is what aligned depth gave the loss.
    """

    strength: float = 0.0
    noise: DepthNoiseConfig | None = None
    shuffled: bool = False

    @property
    def effects(self) -> DepthNoiseConfig | None:
        """Return the noise to put on, ``None`` for none."""
        return self.noise or (realsense_like(self.strength) if self.strength > 0 else None)


@dataclass(frozen=True)
class Grid:
    """Cells as a product.

    Args:
        networks, losses, depths: names from the evidence file.
        ablations: topics of the evidence file, all of whose values are run one by one; ``default`` varies nothing.
        seeds: ``None`` takes those of the evidence file.
        students: also train a student on the label maps of each cell.
        table: whether ``--table`` measures these cells on the test split.
    """

    networks: tuple[str, ...]
    losses: tuple[str, ...]
    depths: tuple[str, ...] = (CLEAN,)
    ablations: tuple[str, ...] = (DEFAULT,)
    seeds: tuple[int, ...] | None = None
    students: bool = False
    table: bool = False


@dataclass(frozen=True)
class Cell:
    """One experiment: see the module."""

    network: str
    losses: str
    depth: str = CLEAN
    ablation: str = DEFAULT
    seed: int = 0
    choice: str = ""
    students: bool = False
    table: bool = False

    @property
    def name(self) -> str:
        """Names its files."""
        parts = [self.network, self.losses, self.depth, self.ablation, *([self.choice] if self.choice else [])]
        return "--".join(re.sub(r"[^A-Za-z0-9.]+", "_", part) for part in parts) + f"--seed_{self.seed}"


@dataclass(frozen=True)
class Evidence:
    """An evidence file.

    Args:
        domains: what is measured, by name: options of ``datasets.open_dataset`` without ``split``.
        train: options of the training part, without ``split``; its ``val`` gives classification mAP.
        render: the benchmark to render where no data is given.
        settings: changes of the recipe for all cells.
        networks: by name, see :class:`NetworkRow`.
        losses: by name, see :class:`LossRow`.
        depths: by name, see :class:`DepthCondition`.
        ablations: topic → value → changes of the recipe; ``train_samples`` among them trains on as many images only,
            evenly spread, ``forgotten_labels`` leaves out that share of names, see
            :class:`~deal_ros.datasets.views.ForgottenLabels`.
        choice_seeds: seeds of the trials that decide between a network's choices.
        refinements: of :class:`~deal_ros.pseudo_labels.PseudoLabelConfig`, measured beside the raw maps.
        grids: the cells.
        seeds: of every cell that names none.
        validation_samples, test_samples: most images per domain that are measured; 0 takes all.
    """

    domains: dict
    train: dict
    networks: dict
    losses: dict
    grids: tuple[Grid, ...]
    render: RenderConfig | None = None
    settings: dict = field(default_factory=dict)
    depths: dict = field(default_factory=lambda: {CLEAN: {}})
    ablations: dict = field(default_factory=dict)
    choice_seeds: tuple[int, ...] = (0,)
    refinements: tuple[Literal["rgb", "rgbd", "crf"], ...] = ("rgb", "rgbd")
    seeds: tuple[int, ...] = (0, 1, 2)
    validation_samples: int = 0
    test_samples: int = 0
    folder: Path = Path()
    """Where the evidence file lies."""

    def __post_init__(self) -> None:
        """Every name must be defined, every setting be one of the recipe's."""
        for number, grid in enumerate(self.grids):
            for kind in ("networks", "losses", "depths", "ablations"):
                for name in getattr(grid, kind):
                    _known(name, [*getattr(self, kind), *([DEFAULT] if kind == "ablations" else [])], f"{kind[:-1]}")
            if not grid.networks or not grid.losses or not grid.depths or not grid.ablations:
                raise ConfigError(f"grids[{number}] must name networks, losses, depths and ablations")
        if not self.grids or not self.domains:
            raise ConfigError("grids and domains must have at least one entry each")
        for name in self.losses:
            _known(self.row(name).tuned or name, self.losses, f"tuned row of {name!r}")
        cells = self.cells()
        for cell in cells:
            self.condition(cell.depth)
            if cell.seed == cells[0].seed:
                self.cell_recipe(cell)
                self.training_changes(cell)
        for name in dict.fromkeys(cell.network for cell in cells):
            first = next(cell for cell in cells if cell.network == name)
            for choice in self.network(name).choices:
                self.cell_recipe(replace(first, choice=choice))

    def network(self, name: str) -> NetworkRow:
        """Return the network called ``name``."""
        return from_mapping(NetworkRow, self.networks[name], f"networks.{name}")

    def row(self, name: str) -> LossRow:
        """Return the row of losses called ``name``."""
        return from_mapping(LossRow, self.losses[name] or {}, f"losses.{name}")

    def condition(self, name: str) -> DepthCondition:
        """Return the condition of depth called ``name``."""
        return from_mapping(DepthCondition, self.depths[name] or {}, f"depths.{name}")

    def cells(self) -> list[Cell]:
        """All cells, each once, in the order of the grids; one that several grids name does what any of them asks."""
        found: dict[tuple, Cell] = {}
        for grid in self.grids:
            for network, losses, depth, ablation, seed in product(
                grid.networks, grid.losses, grid.depths, self._values(grid.ablations), grid.seeds or self.seeds
            ):
                key = (network, losses, depth, ablation, seed)
                old = found.get(key)
                students, table = grid.students or bool(old and old.students), grid.table or bool(old and old.table)
                found[key] = Cell(*key, students=students, table=table)
        return list(found.values())

    def trials(self) -> list[Cell]:
        """Return the cells that decide which of its network's choices each row of losses uses."""
        wanted = {(cell.network, self.row(cell.losses).tuned or cell.losses): None for cell in self.cells()}
        return [
            Cell(network, losses, seed=seed, choice=choice)
            for network, losses in wanted
            if self.row(losses).supervision == "image labels"
            for choice in self.network(network).choices
            if len(self.network(network).choices) > 1
            for seed in self.choice_seeds
        ]

    def cell_recipe(self, cell: Cell) -> Recipe:
        """Return the recipe of a cell."""
        network = self.network(cell.network)
        layers = [self.settings, network.changes, network.choices.get(cell.choice), self.row(cell.losses).changes]
        if cell.ablation != DEFAULT:
            changes = self._ablation(cell)
            layers.append({key: value for key, value in changes.items() if key not in TRAINING_CHANGES})
        values = self._base(network.recipe)
        for layer in layers:
            values = merged(values, layer or {})
        recipe = from_mapping(Recipe, values, f"{network.recipe} for {cell.name}").seeded(cell.seed)
        config = recipe.train_cam
        if self.condition(cell.depth).shuffled:
            config = replace(config, loader=replace(config.loader, shuffle_depth=True))
        return replace(recipe, train_cam=normalized(config), smoke={})

    def training_changes(self, cell: Cell) -> dict[str, Any]:
        """Return what a cell sets of :data:`TRAINING_CHANGES`.

        Raises:
            ConfigError: if one is outside its range.
        """
        changes = self._ablation(cell)
        count, share = changes.get(TRAIN_SAMPLES, 1), changes.get(FORGOTTEN_LABELS, 0.0)
        if type(count) is not int or count < 1:
            raise ConfigError(f"ablation {cell.ablation!r}: {TRAIN_SAMPLES} must be a whole number >= 1, got {count!r}")
        if not isinstance(share, (int, float)) or not 0 <= share <= 1:
            raise ConfigError(f"ablation {cell.ablation!r}: {FORGOTTEN_LABELS} must be 0..1, got {share!r}")
        return {key: changes[key] for key in TRAINING_CHANGES if key in changes}

    def _ablation(self, cell: Cell) -> dict[str, Any]:
        if cell.ablation == DEFAULT:
            return {}
        topic, _, value = cell.ablation.partition(" = ")
        return {str(key): change for key, change in self.ablations[topic].items()}[value] or {}

    def _base(self, recipe: Path) -> dict[str, Any]:
        if recipe not in self._recipes:
            values = load_yaml(self.folder / recipe)
            self._recipes[recipe] = {key: value for key, value in values.items() if key != "smoke"}
        return self._recipes[recipe]

    @cached_property
    def _recipes(self) -> dict[Path, dict[str, Any]]:
        return {}

    def _values(self, topics: Iterable[str]) -> Iterator[str]:
        for topic in topics:
            if topic == DEFAULT:
                yield DEFAULT
            else:
                yield from (f"{topic} = {value}" for value in self.ablations[topic])


def load_evidence(path: str | Path) -> Evidence:
    """Read an evidence file.

    Raises:
        ConfigError: if it cannot be read, names something that it does not define, or a setting is refused.
    """
    path = Path(path)
    values = load_yaml(path)
    return from_mapping(Evidence, {**values, "folder": str(path.parent)}, str(path))


def normalized(config: TrainCamConfig) -> TrainCamConfig:
    """``config`` without what does not matter to it: settings of DEAL do not make another run where DEAL is off."""
    if "deal" in parse_terms(config.losses.terms):
        return config
    unused = CamLossConfig()
    losses = replace(config.losses, deal=unused.deal, deal_weight=unused.deal_weight)
    return replace(config, losses=losses, loader=replace(config.loader, shuffle_depth=False), baseline_map=None)


def first_choice(evidence: Evidence, network: str) -> str:
    """Return what a row uses whose choice is not made yet, or that has none to make."""
    return next(iter(evidence.network(network).choices), "")


def digest(value: Mapping[str, Any]) -> str:
    """Ten digits that name a setting: equal settings share a run."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:10]


def plain(config: Any) -> dict[str, Any]:
    """Plain values of a config, as JSON would give them back."""
    return json.loads(json.dumps(to_mapping(config)))


def _known(name: str, names: Iterable[str], kind: str) -> None:
    names = list(names)
    if name not in names:
        near = difflib.get_close_matches(name, names, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ConfigError(f"{kind} must be one of {', '.join(names)}, got {name!r}{hint}")
