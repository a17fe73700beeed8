# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Pairing of two streams by stamp: the one class that does it live (collector, segmenter) and offline (bag import).

The rule looks at stamps only, never at arrival times, so the same two streams give the same pairs however their
messages interleave (as long as one stream does not run ahead of the other by more than the queue holds):

* Only messages whose stamps differ by at most the slop can pair; each message is used at most once; pairs come in
  stamp order in both streams.
* A message gets its nearest partner unless that partner has a nearer one itself, which in turn is still free: the
  stable matching of the two streams. A lost frame therefore never shifts the pairs after it.
* Equal stamps (hardware-synchronised cameras) pair at once. Others are certain only when the earlier stream's next
  message has been seen; :attr:`PairingConfig.min_period_ms` shortens that wait where the frame rate is known.

The cost is a few comparisons per message, independent of the queue size.
"""

from __future__ import annotations

from bisect import insort
from collections import deque
from dataclasses import dataclass
from typing import Any, NamedTuple

RGB, DEPTH = 0, 1
STREAMS = ("rgb", "depth")
DROP_REASONS = ("no_partner", "queue_full", "stale", "duplicate", "zero_stamp", "clock_jump")
"""Why a message was not paired: nothing within the slop; the other stream fell silent and the queue was full; it came
after its time had been decided; its stamp was seen already; it has no stamp; the clock jumped back while it waited."""
_WINDOW = 1024
_RATE_WINDOW = 64
_NOTHING: tuple[Pair, ...] = ()


class Pair(NamedTuple):
    """Two messages of the same moment. ``offset_ns`` is depth's stamp minus colour's."""

    stamp_ns: int
    rgb: Any
    depth: Any
    offset_ns: int


@dataclass(frozen=True)
class PairingConfig:
    """How far apart is still together, and how much may wait.

    Args:
        slop_ms: largest difference of stamps within a pair, in milliseconds.
        queue_size: most messages that wait per stream.
        clock_jump_ms: a stamp this much older than its stream's newest means that the clock was set back (a bag
            looped, a simulation restarted); smaller steps back are messages out of order.
        min_period_ms: no stream sends two frames closer than this; pairs nearer than half of it are certain at once.
            0 knows nothing and waits for the next frame, unless stamps are equal.

    Raises:
        ValueError: if a value is out of range.
    """

    slop_ms: float = 20.0
    queue_size: int = 30
    clock_jump_ms: float = 1000.0
    min_period_ms: float = 0.0

    def __post_init__(self) -> None:
        """Check ranges."""
        if not 0 <= self.slop_ms <= 10_000:
            raise ValueError(f"slop_ms must be in 0..10000, got {self.slop_ms}")
        if not 2 <= self.queue_size <= 100_000:
            raise ValueError(f"queue_size must be in 2..100000, got {self.queue_size}")
        if not self.clock_jump_ms > 0:
            raise ValueError(f"clock_jump_ms must be positive, got {self.clock_jump_ms}")
        if not self.min_period_ms >= 0:
            raise ValueError(f"min_period_ms must be 0 or more, got {self.min_period_ms}")


@dataclass(frozen=True)
class PairingStatistics:
    """A snapshot. For each stream: ``received = paired + sum(dropped) + waiting``.

    Args:
        received: messages per stream.
        paired: pairs made.
        dropped: per stream, messages by reason (see :data:`DROP_REASONS`), zeros included.
        waiting: messages per stream that are not decided yet.
        clock_jumps: times the clock went back.
        rate_hz: per stream, from the stamps of the newest messages; 0 while unknown.
        offset_ms: mean signed offset of the newest pairs (depth minus colour); 0 without pairs.
        offset_p95_ms: 95th percentile of the absolute offset of the newest pairs.
        missed_by_ms: smallest signed stamp difference (depth minus colour) among the newest messages that found no
            partner; ``None`` if there were none. Tells an unsuitable slop from streams on different clocks.
    """

    received: dict[str, int]
    paired: int
    dropped: dict[str, dict[str, int]]
    waiting: dict[str, int]
    clock_jumps: int
    rate_hz: dict[str, float]
    offset_ms: float
    offset_p95_ms: float
    missed_by_ms: float | None


class StampPairer:
    """Pairs colour and depth messages by header stamp, in bounded memory. Not thread-safe: one thread owns it.

    Example:
        >>> pairer = StampPairer(PairingConfig(slop_ms=20))
        >>> pairer.add_rgb(1_000_000_000, "colour")
        ()
        >>> [(pair.rgb, pair.depth) for pair in pairer.add_depth(1_000_000_000, "depth")]
        [('colour', 'depth')]
    """

    def __init__(self, config: PairingConfig = PairingConfig()) -> None:
        self.config = config
        self._slop = round(config.slop_ms * 1e6)
        self._jump = round(config.clock_jump_ms * 1e6)
        self._certain = round(config.min_period_ms * 0.5e6)
        self._limit = config.queue_size
        self._queues: tuple[deque[tuple[int, int, Any]], deque[tuple[int, int, Any]]] = (deque(), deque())
        self._newest: list[int | None] = [None, None]
        self._decided = [0, 0]
        """Per stream, the newest stamp that has been paired or dropped: nothing older is taken any more."""
        self._arrivals = 0
        self._received = [0, 0]
        self._paired = 0
        self._dropped = tuple(dict.fromkeys(DROP_REASONS, 0) for _ in STREAMS)
        self._clock_jumps = 0
        self._recent: tuple[deque[int], deque[int]] = (deque(maxlen=_RATE_WINDOW), deque(maxlen=_RATE_WINDOW))
        self._offsets: deque[int] = deque(maxlen=_WINDOW)
        self._misses: deque[int] = deque(maxlen=_RATE_WINDOW)

    def add_rgb(self, stamp_ns: int, message: Any) -> tuple[Pair, ...]:
        """Take a colour message; see :meth:`add`."""
        return self.add(RGB, stamp_ns, message)

    def add_depth(self, stamp_ns: int, message: Any) -> tuple[Pair, ...]:
        """Take a depth message; see :meth:`add`."""
        return self.add(DEPTH, stamp_ns, message)

    def add(self, stream: int, stamp_ns: int, message: Any) -> tuple[Pair, ...]:
        """Take a message and return the pairs that have become certain, oldest first.

        Args:
            stream: :data:`RGB` or :data:`DEPTH`.
            stamp_ns: header stamp in nanoseconds; 0 or less means that the driver did not set it.
            message: anything; it is handed back untouched in the pair.
        """
        self._received[stream] += 1
        if stamp_ns <= 0:
            self._dropped[stream]["zero_stamp"] += 1
            return _NOTHING
        newest = self._newest[stream]
        queue = self._queues[stream]
        if newest is None or stamp_ns > newest:
            self._newest[stream] = stamp_ns
            self._recent[stream].append(stamp_ns)
            queue.append((stamp_ns, self._arrivals, message))
        elif newest - stamp_ns >= self._jump:
            self._clear_after_jump(stream, stamp_ns)
            queue.append((stamp_ns, self._arrivals, message))
        elif not self._insert(stream, stamp_ns, message):
            return _NOTHING
        self._arrivals += 1
        if not self._queues[1 - stream] and len(queue) <= self._limit:
            return _NOTHING
        pairs = self._resolve(final=False)
        if len(queue) > self._limit:
            pairs += self._make_room(stream)
        return tuple(pairs) if pairs else _NOTHING

    def flush(self) -> tuple[Pair, ...]:
        """Decide everything that waits, as if both streams had ended; for the end of a recording."""
        pairs = self._resolve(final=True)
        for stream, queue in enumerate(self._queues):
            while queue:
                self._drop_oldest(stream, "no_partner")
        return tuple(pairs)

    def statistics(self) -> PairingStatistics:
        """Counters since construction and figures of the newest messages."""
        sizes = sorted(abs(offset) for offset in self._offsets)
        nearest = min(self._misses, key=abs) if self._misses else None
        return PairingStatistics(
            received=dict(zip(STREAMS, self._received)),
            paired=self._paired,
            dropped={name: dict(counts) for name, counts in zip(STREAMS, self._dropped)},
            waiting={name: len(queue) for name, queue in zip(STREAMS, self._queues)},
            clock_jumps=self._clock_jumps,
            rate_hz={name: _rate(stamps) for name, stamps in zip(STREAMS, self._recent)},
            offset_ms=sum(self._offsets) / len(sizes) / 1e6 if sizes else 0.0,
            offset_p95_ms=sizes[min(len(sizes) - 1, len(sizes) * 95 // 100)] / 1e6 if sizes else 0.0,
            missed_by_ms=None if nearest is None else nearest / 1e6,
        )

    def _insert(self, stream: int, stamp_ns: int, message: Any) -> bool:
        """Put a message that came out of order into its place; False if it is a duplicate or too late."""
        queue = self._queues[stream]
        if stamp_ns == self._decided[stream] or any(entry[0] == stamp_ns for entry in queue):
            self._dropped[stream]["duplicate"] += 1
            return False
        if stamp_ns < self._decided[stream]:
            self._dropped[stream]["stale"] += 1
            return False
        insort(queue, (stamp_ns, self._arrivals, message))
        return True

    def _clear_after_jump(self, stream: int, stamp_ns: int) -> None:
        self._clock_jumps += 1
        for index, queue in enumerate(self._queues):
            self._dropped[index]["clock_jump"] += len(queue)
            queue.clear()
            self._recent[index].clear()
            self._decided[index] = 0
        self._newest = [None, None]
        self._newest[stream] = stamp_ns
        self._recent[stream].append(stamp_ns)
        self._misses.clear()

    def _resolve(self, final: bool, at_most: int = -1) -> list[Pair]:
        pairs: list[Pair] = []
        rgb, depth = self._queues
        while rgb and depth and at_most:
            at_most -= 1
            offset = depth[0][0] - rgb[0][0]
            if offset > self._slop:
                self._miss(RGB, offset)
            elif -offset > self._slop:
                self._miss(DEPTH, offset)
            else:
                verdict = True if abs(offset) <= self._certain else self._heads_pair(final)
                if verdict is None:
                    break
                if verdict:
                    pairs.append(self._pair(offset))
                else:
                    self._miss(RGB if offset > 0 else DEPTH, offset)
        return pairs

    def _heads_pair(self, final: bool) -> bool | None:
        """Whether the two oldest messages belong together; None while a message to come could change it.

        Follows the chain head, other head, next of the first stream, next of the second, …, as long as the gaps
        shrink. At its end is a pair that no other can part; going back, every second gap is a pair.
        """
        rgb, depth = self._queues
        positions = [0, 0]
        here = RGB if rgb[0][0] <= depth[0][0] else DEPTH
        gap = abs(depth[0][0] - rgb[0][0])
        heads_pair = True
        while gap > 0:
            queue = self._queues[here]
            following = positions[here] + 1
            if following >= len(queue):
                return heads_pair if final else None
            partner = self._queues[1 - here][positions[1 - here]][0]
            next_gap = abs(queue[following][0] - partner)
            if next_gap >= gap:
                return heads_pair
            heads_pair = not heads_pair
            if queue[following][0] <= partner:
                return heads_pair  # a nearer one on the same side parts this pair, whatever comes
            positions[here] = following
            gap = next_gap
            here = 1 - here
        return heads_pair

    def _make_room(self, stream: int) -> list[Pair]:
        """Bring a queue under its limit: decide with what is known, or drop the oldest."""
        pairs: list[Pair] = []
        while len(self._queues[stream]) > self._limit:
            if not self._queues[1 - stream]:
                self._drop_oldest(stream, "queue_full")
                break
            pairs += self._resolve(final=True, at_most=1)
            pairs += self._resolve(final=False)
        return pairs

    def _pair(self, offset: int) -> Pair:
        rgb, depth = (queue.popleft() for queue in self._queues)
        self._decided = [rgb[0], depth[0]]
        self._paired += 1
        self._offsets.append(offset)
        return Pair(rgb[0], rgb[2], depth[2], offset)

    def _miss(self, stream: int, offset: int) -> None:
        self._misses.append(offset)
        self._drop_oldest(stream, "no_partner")

    def _drop_oldest(self, stream: int, reason: str) -> None:
        self._decided[stream] = self._queues[stream].popleft()[0]
        self._dropped[stream][reason] += 1


def _rate(stamps: deque[int]) -> float:
    return (len(stamps) - 1) * 1e9 / (stamps[-1] - stamps[0]) if len(stamps) > 1 else 0.0
