# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""``deal run`` on every recipe with every choice of losses, and the verbs of the stages one after the other."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from deal_ros.cli import DONE, FAILED, WRONG_USE, main
from deal_ros.datasets.miniature import write_store
from deal_ros.engine.objective import LOSS_CHOICES, parse_terms
from deal_ros.engine.recipe import load_recipe
from deal_ros.losses import RECOMMENDED
from deal_ros.students import read_bundle

RECIPES = sorted((Path(__file__).resolve().parents[2] / "config" / "recipes").glob("*.yaml"))
PAPER = [recipe for recipe in RECIPES if not recipe.stem.startswith(("robot", "demo"))]
TINY = [
    "train_cam.arguments={backbone: test_efficientnet, output_stride: 16, frozen_stages: 1, weights: none}",
    "train_student.arguments={encoder: test_efficientnet, channels: 16, frozen_stages: 1}",
    "train_student.weights=none",
]
"""Networks of a test's size in place of the recipe's."""


def tiny():
    return [word for change in TINY for word in ("--set", change)]


def results(capsys):
    lines = capsys.readouterr().out.splitlines()
    return [json.loads(line) for line in lines if line.startswith("{")]


def test_the_recipes_of_the_paper_are_all_there():
    names = {recipe.stem for recipe in RECIPES}
    assert {f"{data}_{net}" for data in ("voc", "coco", "hope") for net in ("weaktr", "seam")} <= names
    assert {"rendered_generic", "rendered_seam", "robot"} <= names


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
@pytest.mark.parametrize("losses", LOSS_CHOICES)
def test_every_recipe_is_valid_with_every_choice_of_losses(recipe, losses):
    for smoke in (False, True):
        loaded = load_recipe(recipe, smoke=smoke, changes={"train_cam": {"losses": {"terms": losses}}})
        assert loaded.name == recipe.stem
        assert loaded.train_cam.losses.terms == losses
        assert parse_terms(losses) == tuple(losses.split(",")) * (losses != "none")


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_recipes_have_the_form_of_the_loss_that_was_measured(recipe):
    """VOC and COCO have estimated depth: no holes to fill, and no telling how large a step is."""
    expected = RECOMMENDED
    if recipe.stem.startswith(("voc", "coco")):
        expected = replace(RECOMMENDED, edge_owner="either", edges=replace(RECOMMENDED.edges, fill=0))
    assert load_recipe(recipe).train_cam.losses.deal == expected


def combinations():
    """Every recipe with every choice of losses; a quarter of them, with all recipes and all choices, is quick."""
    for number, recipe in enumerate(PAPER):
        for turn, losses in enumerate(LOSS_CHOICES):
            marks = [] if turn == (number + 3) % 4 else [pytest.mark.slow]
            yield pytest.param(recipe, losses, id=f"{recipe.stem}-{losses}", marks=marks)


@pytest.mark.parametrize(("recipe", "losses"), combinations())
def test_every_recipe_runs_from_data_to_report(recipe, losses, tmp_path, capsys):
    arguments = ["run", str(recipe), "--smoke", "--losses", losses, "--out", str(tmp_path), "--progress", "json"]
    if recipe.stem.startswith("rendered"):
        backbone = {"timm": "test_efficientnet", "seam": "test_resnet"}[load_recipe(recipe).train_cam.network]
        cam = f"train_cam.arguments={{backbone: {backbone}, output_stride: 16, frozen_stages: 1, weights: none}}"
        arguments += ["--set", cam, *tiny()[2:]]
    assert main(arguments) == DONE
    *reports, last = results(capsys)
    stages = {report["stage"] for report in reports}
    assert {"train-cam", "pseudo-label", "train-student", "evaluate"} <= stages
    assert all(0 < report["done"] <= report["total"] for report in reports)
    student, _ = read_bundle(last["result"]["bundle"])
    assert student.num_classes >= 3
    assert "| student |" in (tmp_path / "report.md").read_text()
    assert last["result"]["metrics"]


def test_a_run_is_stopped_by_ctrl_c_and_goes_on(tmp_path, capsys):
    store, out = write_store(tmp_path / "store", per_class=4), tmp_path / "out"
    robot = next(recipe for recipe in RECIPES if recipe.stem == "robot")
    arguments = ["run", str(robot), "--smoke", "--data", str(store), "--out", str(out), "--progress", "json", *tiny()]
    arguments += ["--set", "train_cam.optimization.steps=3000"]
    child = subprocess.Popen(
        [sys.executable, "-m", "deal_ros.cli", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    assert child.stdout is not None
    assert json.loads(child.stdout.readline())["stage"] == "train-cam"
    child.send_signal(signal.SIGINT)
    began = time.monotonic()
    _, said = child.communicate(timeout=120)
    assert time.monotonic() - began < 60
    assert child.returncode == FAILED
    assert "start again to go on" in said
    assert "Traceback" not in said
    assert (out / "seed-0" / "cam" / "last.safetensors").exists()


def test_the_stages_one_by_one(tmp_path, capsys):
    store = str(write_store(tmp_path / "store", per_class=4))
    small = ["--set", "loader.size=[48, 64]", "--set", "optimization.batch_size=4", "--progress", "json"]
    cam, labels, student = (str(tmp_path / name) for name in ("cam", "labels", "student"))
    network = ["--set", TINY[0].removeprefix("train_cam.")]
    assert main(["train-cam", "--data", store, "--out", cam, "--losses", "deal", "--steps", "2", *network, *small]) == 0
    assert 0 <= results(capsys)[-1]["result"]["map"] <= 1
    assert main(["pseudo-label", "--data", store, "--cam", cam, "--out", labels, "--progress", "json"]) == DONE
    assert results(capsys)[-1]["result"]["labelled"] == 8
    head = ["--set", TINY[1].removeprefix("train_student."), "--set", "weights=none", "--steps", "2", *small]
    assert main(["train-student", "--data", store, "--labels", labels, "--out", student, *head]) == DONE
    bundle = results(capsys)[-1]["result"]["bundle"]
    simple, corrected = str(tmp_path / "simple"), str(tmp_path / "corrected")
    given = ["correct-labels", "--data", store, "--labels", labels, "--progress", "json", "--set", "least=4"]
    assert main([*given, "--out", simple]) == DONE
    assert results(capsys)[-1]["result"]["taught"] == ["milk", "ketchup"]
    assert main([*given, "--images", "one", "--out", str(tmp_path / "several")]) == DONE
    assert results(capsys)[-1]["result"]["taught"] == []  # no image shows several classes
    recipe = str(RECIPES[0].with_name("robot.yaml"))
    assert main([*given, "--recipe", recipe, "--teacher", bundle, "--out", corrected]) == DONE
    assert results(capsys)[-1]["result"]["changed"] == 0
    for what in (
        ["--bundle", bundle],
        ["--labels", labels],
        ["--labels", corrected],
        ["--cam", cam, "--refine", "rgb"],
    ):
        assert main(["evaluate", "--data", store, *what, "--progress", "json"]) == DONE
        assert results(capsys)[-1]["result"]["samples"] == 8
    assert main(["store", "relabel", store, "--rename", "milk=butter", "--out", str(tmp_path / "others")]) == DONE
    for what in (["--bundle", bundle], ["--cam", cam]):
        assert main(["evaluate", "--data", str(tmp_path / "others"), *what]) == FAILED
        assert "trained for (milk, ketchup), in this order, got butter, ketchup" in capsys.readouterr().err


def test_wrong_use_is_told_with_its_remedy(tmp_path, capsys):
    voc = next(recipe for recipe in RECIPES if recipe.stem == "voc_weaktr")
    assert main(["run", str(voc), "--out", str(tmp_path)]) == WRONG_USE
    assert "--smoke" in capsys.readouterr().err
    assert main(["run", "robto"]) == WRONG_USE
    assert "robto: no such recipe; give a file, or the name" in capsys.readouterr().err
    assert main(["run", "voc_weaktr"]) == WRONG_USE  # found by its name
    assert "--data must name the voc data" in capsys.readouterr().err
    assert main(["run", str(voc), "--losses", "edges"]) == WRONG_USE
    assert "losses must be" in capsys.readouterr().err
    assert main(["run", str(voc), "--data", str(tmp_path / "nothing"), "--out", str(tmp_path / "o")]) == FAILED
    assert "no such folder" in capsys.readouterr().err
    assert main(["train-cam", "--data", "x", "--out", "y", "--set", "optimisation.steps=1"]) == WRONG_USE
    assert "did you mean 'optimization'?" in capsys.readouterr().err
