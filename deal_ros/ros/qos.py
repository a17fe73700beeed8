# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""QoS that cannot mismatch silently: inputs follow their publishers, incompatible peers are named with both."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy

try:
    from rclpy.event_handler import PublisherEventCallbacks, SubscriptionEventCallbacks, UnsupportedEventTypeError
except ImportError:  # Humble
    from rclpy.qos_event import PublisherEventCallbacks, SubscriptionEventCallbacks, UnsupportedEventTypeError

LATCHED = QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE, durability=DurabilityPolicy.TRANSIENT_LOCAL)
"""For what a late joiner must still learn: labels, model, label info, status."""


def profile(reliability: str, depth: int = 5) -> QoSProfile:
    """Volatile, keep-last profile; ``reliability`` is ``reliable`` or ``best_effort``."""
    policy = ReliabilityPolicy.RELIABLE if reliability == "reliable" else ReliabilityPolicy.BEST_EFFORT
    return QoSProfile(history=HistoryPolicy.KEEP_LAST, depth=depth, reliability=policy)


def describe(qos: QoSProfile) -> str:
    """For log lines: ``reliable, volatile``."""
    return f"{qos.reliability.name.lower()}, {qos.durability.name.lower()}"


def matched_reliability(offered: Sequence[ReliabilityPolicy]) -> str:
    """``reliable`` where every publisher offers it, else ``best_effort``, which every publisher can serve.

    Example:
        >>> matched_reliability([ReliabilityPolicy.RELIABLE, ReliabilityPolicy.BEST_EFFORT])
        'best_effort'
    """
    return "reliable" if offered and all(o == ReliabilityPolicy.RELIABLE for o in offered) else "best_effort"


class MatchedSubscription:
    """A subscription whose reliability follows its publishers as they come, go and change.

    Args:
        node: owner; its executor calls :meth:`follow` through a timer of the node.
        message_type: for example ``sensor_msgs.msg.Image``.
        topic: relative name; remapping applies.
        callback: called with each message; exceptions are the caller's to catch.
        reliability: ``matched``, or a fixed ``reliable`` or ``best_effort``.
        depth: queue depth.
    """

    def __init__(
        self,
        node: Node,
        message_type: type,
        topic: str,
        callback: Callable[[Any], None],
        reliability: str = "matched",
        depth: int = 5,
    ) -> None:
        self.topic = node.resolve_topic_name(topic)
        self.received = 0
        self._node = node
        self._type = message_type
        self._callback = callback
        self._reliability = reliability
        self._depth = depth
        self._subscription: Any = None
        self._qos = profile("best_effort", depth)
        self._made = self._since = time.monotonic()
        self._rate = 0.0
        self._counted = 0
        self.follow()

    @property
    def rate_hz(self) -> float:
        """Messages per second over the last two seconds or so."""
        return self._rate

    @property
    def age_s(self) -> float:
        """Seconds since it was made."""
        return time.monotonic() - self._made

    def follow(self) -> None:
        """Look at the publishers; subscribe anew if another reliability fits them better. Call about once a second."""
        self._measure()
        wanted = self._reliability
        if wanted == "matched":
            offered = [info.qos_profile.reliability for info in self.publishers()]
            if not offered and self._subscription is not None:
                return  # gone for the moment: whoever returns most likely offers the same
            wanted = matched_reliability(offered)
        qos = profile(wanted, self._depth)
        if self._subscription is not None and qos.reliability == self._qos.reliability:
            return
        if self._subscription is not None:
            self._node.get_logger().info(f"{self.topic}: subscribing again as {wanted}, to match its publishers")
            self._node.destroy_subscription(self._subscription)
        self._qos = qos
        arguments = self._type, self.topic, self._on_message, qos
        events = SubscriptionEventCallbacks(incompatible_qos=self._on_incompatible)
        try:
            self._subscription = self._node.create_subscription(*arguments, event_callbacks=events)
        except UnsupportedEventTypeError:  # a middleware that has no such event
            self._subscription = self._node.create_subscription(*arguments)

    def publishers(self) -> list[Any]:
        """Endpoint information of the topic's publishers."""
        return self._node.get_publishers_info_by_topic(self.topic)

    def describe(self) -> str:
        """One line for warnings: name, rate, publishers, QoS on both sides."""
        try:
            offered = [describe(info.qos_profile) for info in self.publishers()]
        except Exception:  # the context may be gone while we explain
            offered = []
        publishers = f"{len(offered)} publisher(s) ({'; '.join(offered)})" if offered else "no publisher"
        return f"{self.topic}: {self.rate_hz:.1f} Hz, {publishers}, subscribed {describe(self._qos)}"

    def destroy(self) -> None:
        """Unsubscribe."""
        if self._subscription is not None:
            self._node.destroy_subscription(self._subscription)
            self._subscription = None

    def _on_message(self, message: Any) -> None:
        self.received += 1
        self._callback(message)

    def _measure(self) -> None:
        elapsed = time.monotonic() - self._since
        if elapsed >= 1.0:
            self._rate = 0.5 * self._rate + 0.5 * (self.received - self._counted) / elapsed
            self._rate = 0.0 if self._rate < 0.05 else self._rate
            self._counted, self._since = self.received, time.monotonic()

    def _on_incompatible(self, event: Any) -> None:
        theirs = "; ".join(sorted({describe(info.qos_profile) for info in self.publishers()})) or "unknown"
        self._node.get_logger().error(
            f"{self.topic}: a publisher's QoS does not fit ours ({policy_name(event)}): it offers {theirs},"
            f" we ask for {describe(self._qos)}; set the *_reliability parameter to matched, or change the publisher"
        )


class LatchedSubscription:
    """A subscription to what is latched, which publishers that latch nothing reach as well.

    It asks for the last message of those who keep it. DDS does not match it then with publishers of the default QoS,
    such as ``ros2 topic pub`` or an application's; when one appears, it subscribes again as volatile, and stays so:
    what was latched long ago must not come a second time over what was said since.

    Args:
        node: owner; its executor calls :meth:`follow` through a timer of the node.
        message_type: for example ``std_msgs.msg.String``.
        topic: relative name; remapping applies.
        callback: called with each message; exceptions are the caller's to catch.
    """

    def __init__(self, node: Node, message_type: type, topic: str, callback: Callable[[Any], None]) -> None:
        self.topic = node.resolve_topic_name(topic)
        self._node, self._type, self._callback = node, message_type, callback
        self._volatile = False
        self._subscription = node.create_subscription(message_type, self.topic, callback, LATCHED)

    def follow(self) -> None:
        """Look at the publishers. Call about once a second."""
        if self._volatile:
            return
        offered = [info.qos_profile.durability for info in self._node.get_publishers_info_by_topic(self.topic)]
        if DurabilityPolicy.VOLATILE not in offered:
            return
        self._volatile = True
        self._node.get_logger().info(f"{self.topic}: subscribing again as volatile, to match its publishers")
        self.destroy()
        self._subscription = self._node.create_subscription(
            self._type, self.topic, self._callback, profile("reliable", depth=1)
        )

    def destroy(self) -> None:
        """Unsubscribe."""
        self._node.destroy_subscription(self._subscription)


def create_publisher(node: Node, message_type: type, topic: str, qos: QoSProfile) -> Any:
    """Create a publisher that logs a subscriber with incompatible QoS together with both policies."""
    resolved = node.resolve_topic_name(topic)

    def on_incompatible(event: Any) -> None:
        theirs = {describe(info.qos_profile) for info in node.get_subscriptions_info_by_topic(resolved)}
        node.get_logger().error(
            f"{resolved}: a subscriber's QoS does not fit ours ({policy_name(event)}): it asks for"
            f" {'; '.join(sorted(theirs)) or 'unknown'}, we offer {describe(qos)}; change the subscriber"
        )

    events = PublisherEventCallbacks(incompatible_qos=on_incompatible)
    try:
        return node.create_publisher(message_type, topic, qos, event_callbacks=events)
    except UnsupportedEventTypeError:
        return node.create_publisher(message_type, topic, qos)


def policy_name(event: Any) -> str:
    """Return the policy that an incompatible-QoS event complains of, for example ``RELIABILITY``."""
    kind = getattr(event, "last_policy_kind", None)
    return getattr(kind, "name", str(kind)).replace("RMW_QOS_POLICY_", "").replace("QOS_POLICY_", "")
