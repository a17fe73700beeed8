# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The set-up script: what it says when something is missing, and that a second start costs nothing."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def bash(script: str, **variables: str) -> subprocess.CompletedProcess:
    """Run a script that has sourced setup.sh, outside any activated environment."""
    environment = {k: v for k, v in os.environ.items() if k not in {"ROS_DISTRO", "PYTHON", "VIRTUAL_ENV"}}
    command = ["bash", "-euo", "pipefail", "-c", f"source {ROOT}/scripts/setup.sh\n{script}"]
    return subprocess.run(command, env={**environment, **variables}, capture_output=True, text=True, timeout=120)


def test_missing_libraries_without_root_give_the_line_to_run(tmp_path):
    pretend = "deal_has_library() { false; }; id() { echo 1000; }; sudo() { return 1; }; apt-get() { echo called; }\n"
    done = bash(f"{pretend} deal_setup", DEAL_ROS_VENV=str(tmp_path / "venv"))
    assert done.returncode == 1
    assert "run this line, then start again:  sudo apt-get update && sudo apt-get install" in done.stderr
    assert "libegl1" in done.stderr
    assert "libosmesa6" in done.stderr
    assert "called" not in done.stdout
    assert not (tmp_path / "venv").exists()


def test_missing_libraries_as_root_are_installed(tmp_path):
    pretend = (
        'deal_has_library() { false; }; id() { echo 0; }; apt-cache() { true; }; deal_install() { mkdir -p "$1"; }\n'
        'env() { shift; "$@"; }; apt-get() { echo "apt-get $*" >&2; }\n'
    )
    done = bash(f"{pretend} deal_setup; echo $MUJOCO_GL", DEAL_ROS_VENV=str(tmp_path / "venv"), MUJOCO_GL="")
    assert done.returncode == 0, done.stderr
    assert "apt-get install -y --no-install-recommends libegl1 libosmesa6" in done.stderr
    assert done.stdout.strip() == "egl"  # the pretended machine has no OSMesa even then


def test_no_apt_says_what_is_missing(tmp_path):
    pretend = 'deal_has_library() { false; }; command() { [ "$2" != apt-get ]; }\n'
    done = bash(f"{pretend} deal_setup", DEAL_ROS_VENV=str(tmp_path / "venv"))
    assert done.returncode == 1
    assert "install them with your package manager" in done.stderr


def test_an_unusable_python_is_refused(tmp_path):
    old = tmp_path / "python3.9"
    old.write_text("#!/bin/sh\nexit 1\n")
    old.chmod(0o755)
    done = bash("deal_setup", PYTHON=str(old), DEAL_ROS_VENV=str(tmp_path / "venv"))
    assert done.returncode == 1
    assert f"PYTHON must be a Python 3.10, 3.11 or 3.12, got {old}" in done.stderr


@pytest.mark.parametrize(("chosen", "profile"), [("", str(ROOT / "config" / "fastdds.xml")), ("LARGE_DATA", "none")])
def test_images_get_transports_that_keep_them_unless_the_shell_has_chosen_some(tmp_path, chosen, profile):
    pretend = 'deal_has_library() { true; }; deal_install() { mkdir -p "$1"; }\n'
    own = dict.fromkeys(("FASTDDS_DEFAULT_PROFILES_FILE", "FASTRTPS_DEFAULT_PROFILES_FILE"), "")
    report = 'echo "${FASTDDS_DEFAULT_PROFILES_FILE:-none}"'
    venv = str(tmp_path / "venv")
    done = bash(f"{pretend} deal_setup; {report}", DEAL_ROS_VENV=venv, FASTDDS_BUILTIN_TRANSPORTS=chosen, **own)
    assert done.stdout.strip() == profile


def test_a_second_start_is_quick():
    venv = Path(sys.prefix)
    if not (venv / ".deal_ros_setup").is_file():
        pytest.skip("this environment was not made by scripts/setup.sh")
    option = "--legacy" if venv.name.endswith("legacy") else ""
    python = os.environ.get("PYTHON", sys.executable)
    started = time.monotonic()
    done = bash(f"deal_install() {{ exit 3; }}; deal_setup {option}", DEAL_ROS_VENV=str(venv), PYTHON=python)
    if done.returncode == 3:
        pytest.skip("lock files or scripts have changed since this environment was made")
    assert done.returncode == 0, done.stderr
    assert time.monotonic() - started < 3.0
