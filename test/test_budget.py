# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""What fast paths may cost, as ratios within one run, generous enough for a busy machine.

The benchmarks have the figures to reach; here is what must not be lost unseen. More of it is in losses/test_cost.py.
"""

from __future__ import annotations

import json
import time

import numpy as np
import pytest
import torch


def test_the_predictor_is_near_its_forward_pass_and_ahead_of_plain_torch(benchmarks):
    from deal_ros.students import Predictor, PredictorConfig, create_student

    common, script = benchmarks("common"), benchmarks("predictor")
    torch.manual_seed(0)
    student = create_student("light", len(script.CLASSES), weights="none").eval()
    config = PredictorConfig(backend="torch", device="cpu", precision="fp32")
    predictor = Predictor.from_student(student, script.SPEC, config)
    predictor.warm_up(script.CAMERA)
    rgb = script.picture(1, script.CAMERA)[0]
    image, eager = torch.zeros(1, 3, *script.NETWORK), script.plain(student)
    with torch.inference_mode():
        calls = {
            "forward": lambda: predictor._backend._forward(image),
            "predict": lambda: predictor.predict(rgb),
            "plain": lambda: eager(rgb),
        }
        series = common.time_calls(calls, warmup=2, repeats=9)
    assert common.median_ratio(series["predict"], series["forward"]) < 2
    assert common.median_ratio(series["plain"], series["predict"]) > 1.1


def test_deal_is_a_small_part_of_a_training_step(benchmarks):
    common, script = benchmarks("common"), benchmarks("deal_cost")
    without = common.time_calls({"step": script.training_step("none", 2, "cpu")}, warmup=1, repeats=3)["step"]
    alone = script._loss_alone(2, "cpu", 5)
    assert min(alone.cpu_s) < 0.15 * min(without.cpu_s)


def test_pairing_costs_the_same_with_a_long_queue_and_a_short_one(benchmarks):
    script = benchmarks("pairing")
    plan = script.streams(600, **script.SCENARIOS["jitter, 10 % lost"], seed=1)
    possible = script.possible_pairs(plan, round(script.SLOP_MS * 1e6))

    class Time:
        def __init__(self, sec, nanosec):
            self.sec, self.nanosec = sec, nanosec

    messages = [(stream, script.message(stamp, number, Time)) for stream, stamp, number in plan]
    seconds = {queue: [] for queue in (10, 100)}
    for _ in range(5):
        for queue, found in seconds.items():
            taken, pairs, _ = script.ours(messages, queue)
            found.append(taken)
            assert pairs >= 0.98 * possible
    assert min(seconds[100]) < 3 * min(seconds[10])


def test_opening_a_store_costs_no_more_than_parsing_its_lines_twice(benchmarks, tmp_path):
    from deal_ros.datasets.store import SampleStore

    benchmarks("store")._write_lines(tmp_path / "store", 20_000)
    SampleStore.open(tmp_path / "store").close()  # parses every line and writes the cache
    opening, parsing = [], []
    for _ in range(3):
        began = time.process_time()
        SampleStore.open(tmp_path / "store").close()
        opening.append(time.process_time() - began)
        began = time.process_time()
        with (tmp_path / "store" / "samples.jsonl").open(encoding="utf-8") as file:
            assert sum(json.loads(line)["stamp_ns"] > 0 for line in file) == 20_000
        parsing.append(time.process_time() - began)
    assert min(opening) < 2 * min(parsing)


def test_importing_keyframes_is_within_reach_of_a_bare_read(benchmarks, tmp_path):
    script = benchmarks("import_bag")
    bag = script.write(tmp_path / "bag", (480, 640), 60, compressed=False)
    bare, imported = [], []
    for number in range(2):
        began = time.process_time()
        script.bare_read(bag)
        bare.append(time.process_time() - began)
        began = time.process_time()
        assert script.imported(bag, tmp_path / f"store{number}", script.KEYFRAMES) >= 3
        imported.append(time.process_time() - began)
    assert min(imported) < 15 * min(bare)


@pytest.mark.ros
def test_a_message_of_a_mask_costs_a_copy_and_not_a_list():
    from deal_ros.ros import convert

    mask = np.random.default_rng(0).integers(0, 15, (720, 1280), np.uint8)
    header, ours, listed = convert.make_header(0, "camera"), [], []
    for _ in range(3):
        began = time.process_time()
        message = convert.image_message(mask, "mono8", header)
        ours.append(time.process_time() - began)
        began = time.process_time()
        assert message.data.tolist() == mask.ravel().tolist()
        listed.append(time.process_time() - began)
    assert min(ours) < 0.5 * min(listed)
