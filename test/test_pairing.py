# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import itertools
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deal_ros.pairing import DEPTH, RGB, PairingConfig, StampPairer

MS = 1_000_000
SECOND = 1000 * MS


def run(pairer: StampPairer, messages: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Feed (stream, stamp) and return the (rgb, depth) stamps of all pairs; checks the books after every message."""
    found = []
    for stream, stamp in messages:
        found += pairer.add(stream, stamp, stamp)
        check_books(pairer)
    found += pairer.flush()
    check_books(pairer)
    return [(pair.rgb, pair.depth) for pair in found]


def check_books(pairer: StampPairer) -> None:
    statistics = pairer.statistics()
    for name in ("rgb", "depth"):
        accounted = statistics.paired + sum(statistics.dropped[name].values()) + statistics.waiting[name]
        assert statistics.received[name] == accounted
        assert statistics.waiting[name] <= pairer.config.queue_size


def stable_pairs(rgb: list[int], depth: list[int], slop: int) -> list[tuple[int, int]]:
    """The rule stated independently: repeatedly take the nearest pair left that crosses none taken before."""
    taken: list[tuple[int, int]] = []
    every = ((abs(r - d), max(r, d), r, d) for r in rgb for d in depth if abs(r - d) <= slop)
    for _, _, r, d in sorted(every):
        if all((r - r2) * (d - d2) > 0 for r2, d2 in taken):
            taken.append((r, d))
    return sorted(taken)


def merge(rgb: list[int], depth: list[int], choices: list[bool]) -> list[tuple[int, int]]:
    """One interleaving of two streams; each stays in its own order."""
    left, messages = [list(rgb), list(depth)], []
    for choice in itertools.chain(choices, itertools.repeat(True)):
        if not any(left):
            return messages
        stream = int(choice) if left[int(choice)] else 1 - int(choice)
        messages.append((stream, left[stream].pop(0)))
    return messages


stamps = st.lists(st.integers(1, 400), unique=True, max_size=24).map(lambda values: sorted(v * MS for v in values))


@settings(max_examples=400, deadline=None)
@given(rgb=stamps, depth=stamps, choices=st.lists(st.booleans(), max_size=60), slop=st.integers(0, 60))
def test_any_interleaving_gives_the_stable_matching(rgb, depth, choices, slop) -> None:
    pairs = run(StampPairer(PairingConfig(slop_ms=slop, queue_size=30)), merge(rgb, depth, choices))
    assert pairs == stable_pairs(rgb, depth, slop * MS)


@settings(max_examples=300, deadline=None)
@given(
    messages=st.lists(st.tuples(st.sampled_from([RGB, DEPTH]), st.integers(-5, 3000)), max_size=150),
    slop=st.integers(0, 50),
    queue=st.integers(2, 8),
)
def test_rubbish_never_breaks_the_promises(messages, slop, queue) -> None:
    pairer = StampPairer(PairingConfig(slop_ms=slop, queue_size=queue, clock_jump_ms=500))
    found = []
    for number, (stream, stamp) in enumerate(messages):
        found += pairer.add(stream, stamp * MS, (number, stamp * MS))
        check_books(pairer)
    found += pairer.flush()
    assert all(abs(pair.rgb[1] - pair.depth[1]) <= slop * MS for pair in found)
    assert len({pair.rgb[0] for pair in found}) == len(found) == len({pair.depth[0] for pair in found})
    assert all(pair.stamp_ns == pair.rgb[1] and pair.offset_ns == pair.depth[1] - pair.rgb[1] for pair in found)


def test_equal_stamps_pair_at_once() -> None:
    pairer = StampPairer()
    assert pairer.add_depth(5 * SECOND, "depth") == ()
    (pair,) = pairer.add_rgb(5 * SECOND, "rgb")
    assert (pair.rgb, pair.depth, pair.offset_ns, pair.stamp_ns) == ("rgb", "depth", 0, 5 * SECOND)


def test_a_known_period_makes_near_stamps_pair_at_once() -> None:
    waiting, certain = StampPairer(), StampPairer(PairingConfig(min_period_ms=20))
    for pairer in (waiting, certain):
        pairer.add_rgb(SECOND, "rgb")
    assert waiting.add_depth(SECOND + 9 * MS, "depth") == ()
    assert len(certain.add_depth(SECOND + 9 * MS, "depth")) == 1


def test_a_lost_frame_does_not_shift_the_pairs_after_it() -> None:
    # depth comes 2 ms after colour and the slop spans a whole period: first-come pairing would stay shifted for ever
    rgb = [SECOND + 33 * MS * k for k in range(10)]
    depth = [stamp + 2 * MS for stamp in rgb]
    pairs = run(StampPairer(PairingConfig(slop_ms=33)), merge(rgb[1:], depth, [True, False] * 20))
    assert pairs == list(zip(rgb[1:], depth[1:]))


@pytest.mark.parametrize("offset_ms", [20, 21])
def test_slop_is_inclusive(offset_ms: int) -> None:
    pairs = run(StampPairer(), [(RGB, SECOND), (DEPTH, SECOND + offset_ms * MS)])
    assert len(pairs) == (1 if offset_ms == 20 else 0)


def test_reasons_are_counted() -> None:
    pairer = StampPairer(PairingConfig(queue_size=2))
    run_ms = [(RGB, 0), (RGB, 1000), (RGB, 1000), (DEPTH, 1000), (RGB, 990), (RGB, 1100), (RGB, 1200), (RGB, 1300)]
    for stream, stamp in run_ms:
        pairer.add(stream, stamp * MS, None)
    pairer.add(DEPTH, 1250 * MS, None)
    pairer.flush()
    statistics = pairer.statistics()
    assert statistics.dropped["rgb"] == {
        "no_partner": 2, "queue_full": 1, "stale": 1, "duplicate": 1, "zero_stamp": 1, "clock_jump": 0,
    }  # fmt: skip
    assert statistics.dropped["depth"]["no_partner"] == 1
    assert abs(statistics.missed_by_ms) == pytest.approx(50)


def test_clock_set_back_clears_and_goes_on() -> None:
    pairer = StampPairer()
    first = [(stream, SECOND * 100 + 33 * MS * k) for k in range(5) for stream in (RGB, DEPTH)]
    again = [(stream, SECOND + 33 * MS * k) for k in range(5) for stream in (RGB, DEPTH)]
    pairs = run(pairer, [*first, (RGB, 101 * SECOND), *again])
    statistics = pairer.statistics()
    assert len(pairs) >= 9
    assert statistics.clock_jumps >= 1
    assert statistics.dropped["rgb"]["clock_jump"] >= 1
    assert statistics.rate_hz["rgb"] == pytest.approx(1000 / 33, rel=0.01)


def test_a_stamp_from_the_future_costs_little() -> None:
    pairer = StampPairer()
    messages = [(stream, SECOND + 33 * MS * k) for k in range(40) for stream in (RGB, DEPTH)]
    messages.insert(30, (DEPTH, 2**62))
    assert len(run(pairer, messages)) >= 37


def test_a_dead_stream_keeps_memory_bounded() -> None:
    pairer = StampPairer(PairingConfig(queue_size=10))
    for k in range(1000):
        pairer.add(RGB, SECOND + 33 * MS * k, None)
    statistics = pairer.statistics()
    assert statistics.waiting["rgb"] == 10
    assert statistics.dropped["rgb"]["queue_full"] == 990


def test_messages_out_of_order_find_their_place() -> None:
    order = [(RGB, 1000), (RGB, 1066), (RGB, 1033), (DEPTH, 1001), (DEPTH, 1034), (DEPTH, 1067)]
    pairs = run(StampPairer(), [(stream, stamp * MS) for stream, stamp in order])
    assert pairs == [(1000 * MS, 1001 * MS), (1033 * MS, 1034 * MS), (1066 * MS, 1067 * MS)]


def test_offsets_and_rates_are_measured() -> None:
    pairer, random_ = StampPairer(), random.Random(1)
    for k in range(200):
        stamp = SECOND + k * SECOND // 30
        pairer.add_rgb(stamp, None)
        pairer.add_depth(stamp + round((5 + random_.uniform(-2, 2)) * MS), None)
    statistics = pairer.statistics()
    assert statistics.rate_hz["rgb"] == pytest.approx(30, rel=0.01)
    assert statistics.offset_ms == pytest.approx(5, abs=0.3)
    assert 6 < statistics.offset_p95_ms <= 7
    assert statistics.paired >= 199


@pytest.mark.parametrize(
    ("arguments", "message"),
    [({"slop_ms": -1}, "slop_ms"), ({"queue_size": 1}, "queue_size"), ({"clock_jump_ms": 0}, "clock_jump_ms"),
     ({"min_period_ms": -1}, "min_period_ms"), ({"slop_ms": float("nan")}, "slop_ms")],
)  # fmt: skip
def test_config_refuses(arguments, message) -> None:
    with pytest.raises(ValueError, match=message):
        PairingConfig(**arguments)
