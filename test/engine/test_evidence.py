# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""A miniature evidence grid runs, resumes without repeating, keeps the test split closed, and becomes tables."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import yaml

from deal_ros.cli import main
from deal_ros.config import ConfigError, from_mapping
from deal_ros.datasets.miniature import write_rendered
from deal_ros.engine import evidence_run
from deal_ros.engine.checkpoint import CheckpointError
from deal_ros.engine.evidence import Cell, Evidence, load_evidence
from deal_ros.engine.evidence_measure import DegradedDepth, measure_cam
from deal_ros.engine.evidence_results import BEGIN, END, rows_of
from deal_ros.engine.evidence_run import EvidenceRun
from deal_ros.engine.evidence_tables import tables
from deal_ros.engine.progress import Cancelled
from deal_ros.filters import DepthNoiseConfig

ROOT = Path(__file__).resolve().parents[2]
KEYS = ["data", "network", "losses", "stage", "threshold", "depth", "seeds", "miou", "miou_sd", "contour_f"]
KEYS += ["map", "map_of_maps", "gate", "commit", "machine"]

RECIPE = {
    "name": "small",
    "data": {"layout": "rendered"},
    "train_cam": {
        "network": "timm",
        "arguments": {"backbone": "test_efficientnet", "weights": "none", "output_stride": 16, "frozen_stages": 1},
        "loader": {"size": [48, 64]},
        "optimization": {"steps": 2, "batch_size": 4},
        "losses": {"deal_weight": {"mode": "gradient_ratio", "value": 1.0, "map_tolerance": 0.1}},
        "evaluate_every": 2,
        "evaluate_samples": 4,
    },
    "pseudo_label": {"labels": {"scales": [1.0], "flip": False, "refine_px": 64}, "threshold_samples": 2},
    "train_student": {
        "arguments": {"encoder": "test_efficientnet", "channels": 16, "frozen_stages": 1},
        "weights": "none",
        "loader": {"size": [48, 64], "cached_views": 1},
        "optimization": {"steps": 2, "batch_size": 4},
        "evaluate_every": 2,
        "evaluate_samples": 2,
    },
}
GRID = {
    "train": {"scenario": "all"},
    "domains": {"onboarding": {"scenario": "onboarding"}},
    "networks": {
        "generic": {
            "recipe": "recipe.yaml",
            "choices": {
                "low": {"train_cam": {"optimization": {"lr": 1e-3}}},
                "high": {"train_cam": {"optimization": {"lr": 3e-3}}},
            },
        }
    },
    "losses": {
        "baseline": {"changes": {"train_cam": {"losses": {"terms": "none"}}}},
        "deal": {"changes": {"train_cam": {"losses": {"terms": "deal"}}}, "tuned": "baseline"},
        "true masks": {"supervision": "true masks"},
    },
    "depths": {"clean": {}, "shuffled": {"shuffled": True}, "missing 0.5": {"noise": {"missing": 0.5}}},
    "ablations": {
        "mu": {1.5: {"train_cam": {"losses": {"deal": {"mu": 1.5}}}}, 2.5: {}},
        "images": {6: {"train_samples": 6}},
    },
    "refinements": ["rgbd"],
    "seeds": [0],
    "validation_samples": 3,
    "test_samples": 3,
    "grids": [
        {"networks": ["generic"], "losses": ["baseline", "deal"], "students": True, "table": True},
        {"networks": ["generic"], "losses": ["true masks"], "table": True},
        {"networks": ["generic"], "losses": ["baseline", "deal"], "depths": ["missing 0.5"]},
        {"networks": ["generic"], "losses": ["deal"], "ablations": ["mu", "images"]},
    ],
}


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_rendered(tmp_path_factory.mktemp("rendered"))


def grid_file(folder: Path, **changes) -> Path:
    (folder / "recipe.yaml").write_text(yaml.safe_dump(RECIPE))
    path = folder / "evidence.yaml"
    path.write_text(yaml.safe_dump({**GRID, **changes}))
    return path


@pytest.mark.slow
def test_a_grid_runs_resumes_and_becomes_tables(tmp_path, data, monkeypatch, capsys):
    path, out, docs = grid_file(tmp_path), tmp_path / "out", tmp_path / "docs"
    work = EvidenceRun(load_evidence(path), out, data, device="cpu")
    with pytest.raises(CheckpointError, match="not trained yet"):
        work.measure_table()

    opened: list[dict] = []
    plainly = evidence_run.open_dataset

    def watched(*arguments, **options):
        opened.append(options)
        return plainly(*arguments, **options)

    monkeypatch.setattr(evidence_run, "open_dataset", watched)
    stages: list[str] = []
    stopping = EvidenceRun(load_evidence(path), out, data, device="cpu", should_stop=lambda: bool(len(opened) > 12))
    with pytest.raises(Cancelled):
        stopping.run()
    before = {p.name: p.stat().st_mtime_ns for p in (out / "raw").glob("*.json")}
    assert before
    work = EvidenceRun(load_evidence(path), out, data, device="cpu", on_progress=lambda p: stages.append(p.stage))
    assert work.run() == []
    assert {n: (out / "raw" / n).stat().st_mtime_ns for n in before} == before
    assert any("cell" in stage for stage in stages)
    assert {options["split"] for options in opened} == {"train", "val"}, "the test split stays closed"

    # Baseline twice (two choices) and on six images, for the gate of the next; DEAL at the chosen one: plain, with
    # holes, on six images, and mu 1.5; mu 2.5 is the plain run.
    assert len(list((out / "cam").glob("generic-none-*"))) == 3
    assert len(list((out / "cam").glob("generic-deal-*"))) == 4
    trained_on = [yaml.safe_load(path.read_text())["samples"] for path in (out / "cam").glob("*/seed-0/config.yaml")]
    assert sorted(trained_on) == [6, 6, *[max(trained_on)] * 5]
    chosen = json.loads((out / "chosen.json").read_text())
    assert set(chosen["scores"]) == {"generic/baseline"}
    best = chosen["chosen"]["generic/baseline"]
    assert chosen["scores"]["generic/baseline"][best] == max(chosen["scores"]["generic/baseline"].values())

    stages.clear()
    assert work.run() == []
    assert not stages, "nothing is done twice"
    command = ["evidence", str(path), "--out", str(out), "--data", str(data), "--device", "cpu"]
    assert main([*command, "--table", "--docs", str(docs), "--progress", "none"]) == 0
    assert "test" in {options["split"] for options in opened}
    rows = json.loads((docs / "results.json").read_text())
    assert all(list(row) == KEYS for row in rows)
    table = [row for row in rows if row["data"] == "onboarding test"]
    assert {(row["losses"], row["stage"]) for row in table} == {
        *(
            (losses, stage)
            for losses in ("baseline", "deal")
            for stage in ("cam seeds", "pseudo-labels rgbd", "student")
        ),
        ("true masks", "student"),
    }
    assert all(0 <= row["miou"] <= 1 and row["commit"] and row["machine"] and row["seeds"] == [0] for row in rows)
    swept = {key(row): row["miou"] for row in rows if row["threshold"] == "swept"}
    free = {key(row): row["miou"] for row in rows if row["threshold"] == "truth-free"}
    assert swept
    assert all(free[name] <= value + 1e-9 for name, value in swept.items()), "no choice beats the sweep on truth"
    assert (docs / "images" / "evidence_mu.png").is_file()
    assert (docs / "images" / "evidence_missing.png").is_file()
    assert (docs / "images" / "evidence_stages.png").is_file()
    page = (docs / "results.md").read_text()
    assert "DEAL − baseline, CAM seeds, swept" in page
    assert "student of DEAL, share of the one on true masks" in page
    assert "| mu | 1.5 | deal | clean |" in page
    assert "[mu" not in page
    raw = json.loads(next((docs / "evidence").glob("*.json")).read_text())
    assert raw["seed"] == 0
    assert raw["commit"]
    assert raw["machine"]
    assert raw["wall"]["measure_s"] > 0
    assert list((docs / "evidence" / "trials").glob("*.json"))

    # Tables and plots are a function of the raw records.
    (docs / "results.md").write_text(f"Mine.\n{BEGIN}\nformer tables\n{END}\nAlso mine.\n")
    first = (docs / "results.json").read_text()
    assert main(["evidence", "--docs", str(docs), "--progress", "none"]) == 0
    again = (docs / "results.md").read_text()
    assert again.startswith("Mine.")
    assert again.rstrip().endswith("Also mine.")
    assert "former tables" not in again
    assert (docs / "results.json").read_text() == first


def key(row) -> tuple:
    return row["data"], row["losses"], row["stage"], row["depth"]


def test_one_failing_cell_is_named_and_does_not_stop_the_others(tmp_path, data):
    wrong = {"train_cam": {"arguments": {"backbone": "no_such_network"}}}
    losses = {"broken": {"changes": wrong}, "true masks": {"supervision": "true masks"}}
    grids = [{"networks": ["generic"], "losses": ["broken", "true masks"]}]
    networks = {"generic": {"recipe": "recipe.yaml"}}
    path = grid_file(tmp_path, losses=losses, grids=grids, networks=networks)
    failed = EvidenceRun(load_evidence(path), tmp_path / "out", data, device="cpu").run()
    assert len(failed) == 1
    assert "no_such_network" in failed[0]
    assert [p.name for p in (tmp_path / "out" / "raw").glob("*")] == [
        "generic--true_masks--clean--default--seed_0--val.json"
    ]


def test_labels_are_forgotten_in_training_alone(tmp_path, data, monkeypatch):
    named: list[tuple[int, int]] = []

    def watched(train, *_, validation, **__):
        named.append(tuple(sum(len(part.labels(i)) for i in range(len(part))) for part in (train, validation)))
        raise ValueError("seen enough")

    monkeypatch.setattr(evidence_run, "train_cam", watched)
    grids = [{"networks": ["generic"], "losses": ["baseline"], "ablations": ["forgotten"]}]
    ablations = {"forgotten": {share: {"forgotten_labels": share} for share in (0, 0.5, 1)}}
    path = grid_file(
        tmp_path, train={}, ablations=ablations, grids=grids, networks={"generic": {"recipe": "recipe.yaml"}}
    )
    assert len(EvidenceRun(load_evidence(path), tmp_path / "out", data, device="cpu").run()) == 3
    everything, half, one = named
    assert everything[0] > half[0] > one[0] > 0
    assert everything[1] == half[1] == one[1]


def test_rows_are_means_over_seeds():
    def record(seed: int, miou: float):
        found = {name: {"miou": miou, "contour_f": None, "threshold": 0.5} for name in ("swept", "truth-free", "fixed")}
        cell = {"network": "n", "losses": "deal", "depth": "clean", "ablation": "default"}
        cam = {"table": {"samples": 1, "map": 0.5, "none": {"curve": [], **found}}}
        return {"cell": cell, "seed": seed, "split": "val", "cam": cam, "trained": [f"c{seed}"], "machine": "m"}

    rows = rows_of([record(1, 0.5), record(0, 0.3)])
    assert len(rows) == 3
    assert rows[0]["seeds"] == [0, 1]
    assert rows[0]["miou"] == pytest.approx(0.4)
    assert rows[0]["miou_sd"] == pytest.approx(0.1414, abs=1e-4)
    assert rows[0]["commit"] == "c0 c1"


def test_values_of_a_setting_stand_in_one_table_in_their_order_with_all_data_side_by_side():
    def row(data: str, value: str, miou: float):
        figures = {"stage": "cam seeds", "threshold": "swept", "miou": miou, "miou_sd": None, "seeds": [0]}
        figures |= {"network": "n", "losses": f"deal [ratio = {value}]", "depth": "clean"}
        return figures | {"data": f"{data} val", "contour_f": 0.1, "map": 0.5, "map_of_maps": 0.4, "gate": 0.25}

    values = (("16", 0.3), ("8", 0.2), ("adaptive", 0.4))
    page = tables([row(data, name, v / n) for n, data in enumerate(("single", "table"), 1) for name, v in values], [])
    lines = [line for line in page if line.startswith("| ratio")]
    assert [line.split(" | ")[1] for line in lines] == ["adaptive", "8", "16"]
    assert "| 20.0 / 10.0 |" in lines[1]
    assert lines[1].endswith("| 10.0 | 50.0 | 40.0 | 25.0 | 1 |"), "what is the same for all is said once"


def test_degraded_depth_is_the_same_every_time_and_leaves_the_rest(data):
    from deal_ros.datasets import open_dataset

    dataset = open_dataset(data, scenario="onboarding", split="val")
    worse = DegradedDepth(dataset, DepthNoiseConfig(missing=0.5))
    assert (worse[0].depth_m == worse[0].depth_m).all()
    assert (worse[0].depth_m == 0).mean() == pytest.approx(0.5, abs=0.02)
    assert (worse[0].rgb == dataset[0].rgb).all()
    assert worse.labels(0) == dataset.labels(0)
    assert not ((worse[0].depth_m == 0) == (worse[1].depth_m == 0)).all()


def test_nothing_to_measure_is_an_error(data):
    class Unlabelled:
        classes = ("a",)

        def __len__(self):
            return 2

        def labels(self, index):
            return None

    from deal_ros.cams import create_cam_network
    from deal_ros.engine.pseudo_label import PseudoLabelStageConfig

    network = create_cam_network("timm", 1, backbone="test_efficientnet", weights="none")
    with pytest.raises(ValueError, match="got none of 2"):
        measure_cam(Unlabelled(), network, PseudoLabelStageConfig(), (48, 64))


@pytest.mark.parametrize("name", ["evidence.yaml", "evidence_reduced.yaml"])
def test_the_files_that_come_along_are_whole(name):
    evidence = load_evidence(ROOT / "config" / name)
    cells = evidence.cells()
    assert len({cell.name for cell in cells}) == len(cells)
    table = {(cell.losses, cell.depth) for cell in cells if cell.table}
    wanted = {"baseline", "isl,fsl", "deal", "isl,fsl,deal", "deal published form", "true masks"}
    assert {(losses, "clean") for losses in wanted} | {("deal", "shuffled")} <= table
    published = evidence.cell_recipe(next(c for c in cells if c.losses == "deal published form")).train_cam.losses
    assert (published.deal.average, published.deal.upsample, published.deal.edges.form) == ("published", 1, "inverse")
    assert published.deal_weight.mode == "constant"
    shuffled = evidence.cell_recipe(next(c for c in cells if c.depth == "shuffled"))
    assert shuffled.train_cam.loader.shuffle_depth
    assert evidence.render is not None
    for name in evidence.networks:
        evidence.cell_recipe(Cell(name, "deal"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"grids": [{"networks": ["generik"], "losses": ["deal"]}]}, "did you mean 'generic'"),
        ({"grids": [{"networks": ["generic"], "losses": ["deal"], "depths": ["foggy"]}]}, "depth must be one of"),
        ({"losses": {**GRID["losses"], "deal": {"tuned": "bassline"}}}, "did you mean 'baseline'"),
        ({"losses": {**GRID["losses"], "deal": {"changes": {"train_cam": {"lozzes": 1}}}}}, "unknown key 'lozzes'"),
        ({"grids": []}, "at least one"),
        ({"ablations": {**GRID["ablations"], "images": {6: {"train_samples": 0}}}}, "whole number >= 1, got 0"),
        ({"ablations": {**GRID["ablations"], "images": {6: {"forgotten_labels": 2}}}}, "must be 0..1, got 2"),
    ],
)
def test_mistakes_are_named_before_anything_runs(tmp_path, changes, message):
    with pytest.raises(ConfigError, match=message):
        load_evidence(grid_file(tmp_path, **changes))


def test_without_data_something_must_be_rendered(tmp_path):
    evidence = from_mapping(Evidence, yaml.safe_load(grid_file(tmp_path).read_text()) | {"folder": str(tmp_path)})
    with pytest.raises(ValueError, match="--data"):
        EvidenceRun(evidence, tmp_path / "out")
