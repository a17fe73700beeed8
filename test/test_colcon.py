# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""`colcon build` makes an install space in which `ros2 run` and `ros2 launch` find everything."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

pytestmark = pytest.mark.skipif(not importlib.util.find_spec("colcon_ros"), reason="colcon is not installed")


@pytest.fixture(scope="module")
def prefix(tmp_path_factory) -> Path:
    workspace = tmp_path_factory.mktemp("workspace")
    environment = {**os.environ, "AMENT_PREFIX_PATH": os.environ.get("AMENT_PREFIX_PATH", sys.prefix)}
    done = subprocess.run(
        [sys.executable, "-m", "colcon", "build", "--base-paths", str(ROOT), "--packages-select", "deal_ros"],
        cwd=workspace,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return workspace / "install" / "deal_ros"


def run_there(prefix: Path, command: str) -> subprocess.CompletedProcess:
    """A command in a shell that has sourced the workspace, without the checkout on its path."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
    script = f"source {prefix.parent}/setup.bash && {command}"
    return subprocess.run(["bash", "-c", script], cwd=prefix, env=environment, capture_output=True, text=True)


def test_every_executable_is_where_ros2_run_looks(prefix):
    names = {path.name for path in (prefix / "lib" / "deal_ros").iterdir()}
    assert names == {"deal", "camera_simulator", "sample_collector", "trainer", "segmenter"}
    for path in (prefix / "lib" / "deal_ros").iterdir():
        assert path.stat().st_mode & 0o111


def test_the_share_folder_is_complete(prefix):
    share = prefix / "share" / "deal_ros"
    for top in ("launch", "config", "models"):
        for path in (ROOT / top).rglob("*"):
            if path.is_file() and path.suffix != ".pyc":
                assert (share / path.relative_to(ROOT)).is_file(), path
    assert (share / "package.xml").is_file()
    assert (prefix / "share" / "ament_index" / "resource_index" / "packages" / "deal_ros").is_file()


def test_the_deal_command_is_on_the_path(prefix):
    done = run_there(prefix, "command -v deal && deal --help")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0] == str(prefix / "bin" / "deal")


def test_the_installed_copy_is_used(prefix):
    code = "from deal_ros import installed as i; print(i.__file__, i.recipe_file('robot'), i.bundle_folder('tabletop'))"
    done = run_there(prefix, f'python -c "{code}"')
    code_file, recipe, bundle = done.stdout.split()
    share = prefix / "share" / "deal_ros"
    assert code_file.startswith(str(prefix / "lib")), done.stdout + done.stderr
    assert (recipe, bundle) == (str(share / "config" / "recipes" / "robot.yaml"), str(share / "models" / "tabletop"))
