# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""What every test runs in: one thread, a home of its own, a ROS domain that no other test process is in."""

from __future__ import annotations

import fcntl
import importlib
import importlib.util
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import pytest

ROOT = Path(__file__).resolve().parents[1]


def _surroundings() -> Path:
    """Set the environment before anything of the package is imported; child processes inherit it."""
    worker = os.environ.get("PYTEST_XDIST_WORKER", "gw0")
    home = Path(tempfile.mkdtemp(prefix=f"deal_ros_test_{worker}_"))
    cache = ROOT / ".pytest_cache" / "matplotlib"
    paths = [str(ROOT), str(ROOT / "test" / "support")]
    os.environ.update(
        HOME=str(home),
        ROS_HOME=str(home / ".ros"),
        ROS_LOG_DIR=str(home / ".ros" / "log"),
        ROS_DOMAIN_ID=os.environ.get("DEAL_ROS_TEST_DOMAIN") or str(_free_domain()),
        OMP_NUM_THREADS="1",
        OPENBLAS_NUM_THREADS="1",
        MPLCONFIGDIR=str(cache),
        MPLBACKEND="Agg",
        HF_HUB_OFFLINE="1",
        PYTHONPATH=os.pathsep.join([*paths, *filter(None, [os.environ.get("PYTHONPATH", "")])]),
    )
    old = os.environ.get("ROS_DISTRO") in ("humble", "jazzy")  # as in deal_ros/ros/transports.py
    os.environ["FASTRTPS_DEFAULT_PROFILES_FILE" if old else "FASTDDS_DEFAULT_PROFILES_FILE"] = str(
        ROOT / "config" / "fastdds.xml"
    )
    os.environ.pop("FASTDDS_BUILTIN_TRANSPORTS", None)
    os.environ.setdefault("MUJOCO_GL", "egl" if Path("/dev/nvidiactl").exists() else "osmesa")
    return home


def _free_domain() -> int:
    """A ROS domain that no other test process on this machine is in; it is held until this process ends.

    Domains 1..101 keep clear of Linux' ephemeral ports; 0 is where people's own nodes are.
    """
    first = os.getpid() % 100
    for step in range(100):
        domain = 1 + (first + step) % 100
        try:
            file = (Path(tempfile.gettempdir()) / f"deal_ros_test_domain_{domain}.lock").open("w")
            _HELD.append(file)
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:  # somebody holds it, or it is another user's
            continue
        return domain
    raise RuntimeError("all ROS domains 1..100 are taken by other test processes on this machine")


_HELD: list[IO[str]] = []
HOME = _surroundings()


def pytest_configure(config: pytest.Config) -> None:
    """One thread: two test processes share the machine."""
    if importlib.util.find_spec("triton"):
        importlib.import_module("triton")  # before any test imports MuJoCo: scenes/opengl.py says why
    if importlib.util.find_spec("torch"):
        import torch

        torch.set_num_threads(1)


_exit_status = 0


def pytest_sessionfinish(exitstatus: int) -> None:
    """Remember how it went."""
    global _exit_status
    _exit_status = int(exitstatus)


@pytest.hookimpl(trylast=True)
def pytest_unconfigure(config: pytest.Config) -> None:
    """Leave nothing behind. A process that was in the DDS graph ends here and now: join() in ros_graph.py says why."""
    shutil.rmtree(HOME, ignore_errors=True)
    if "ros_graph" in sys.modules and not hasattr(config, "workerinput"):
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(_exit_status)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what lies in test/ros, and skip, with the reason, what this machine cannot run."""
    no_ros = _reason_without_ros()
    no_gl = _reason_without_gl() if any(item.get_closest_marker("gl") for item in items) else ""
    for item in items:
        if ROOT / "test" / "ros" in item.path.parents and not item.get_closest_marker("no_ros"):
            item.add_marker("ros")
        if no_ros and item.get_closest_marker("ros"):
            item.add_marker(pytest.mark.skip(reason=no_ros))
        if no_gl and item.get_closest_marker("gl"):
            item.add_marker(pytest.mark.skip(reason=no_gl))


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Without rclpy the modules in test/ros cannot even be imported."""
    inside = ROOT / "test" / "ros" in [collection_path, *collection_path.parents]
    return True if inside and _reason_without_ros() else None


def pytest_report_header() -> list[str]:
    """What the run stands on, for whoever reads the log."""
    lines = [f"ROS domain {os.environ['ROS_DOMAIN_ID']}, MUJOCO_GL={os.environ['MUJOCO_GL']}"]
    if _reason_without_ros():
        lines.append(f"test/ros is left out: {_reason_without_ros()}")
    return lines


def _reason_without_ros() -> str:
    return "" if importlib.util.find_spec("rclpy") else "rclpy is not installed (scripts/setup.sh installs it)"


def _reason_without_gl() -> str:
    if not importlib.util.find_spec("mujoco"):
        return "mujoco is not installed"
    import ctypes.util

    if not any(ctypes.util.find_library(name) for name in ("OSMesa", "EGL")):
        return "no OpenGL library: apt-get install libosmesa6 libegl1 libgl1-mesa-dri"
    return ""


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of the checkout."""
    return ROOT


@pytest.fixture(scope="session")
def benchmarks() -> Iterator[Callable[[str], Any]]:
    """Imports a module of the benchmarks by its name; they import one another as scripts do."""
    sys.path.append(str(ROOT / "benchmarks"))
    yield importlib.import_module
    sys.path.remove(str(ROOT / "benchmarks"))
