# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Rendering and training in one process: Mesa's LLVM and triton's must not meet in the wrong order."""

from __future__ import annotations

import importlib.util
import subprocess
import sys

import pytest

CODE = """
from deal_ros.scenes.opengl import import_mujoco
mujoco = import_mujoco()
context = mujoco.GLContext(64, 64)
context.make_current()
model = mujoco.MjModel.from_xml_string('<mujoco><worldbody><geom size=".1"/></worldbody></mujoco>')
mujoco.MjrContext(model, mujoco.mjtFontScale.mjFONTSCALE_100)
import torch
torch.optim.Adam([torch.zeros(1, requires_grad=True)])  # brings triton in, where it is installed
print("both")
"""


@pytest.mark.gl
@pytest.mark.skipif(not importlib.util.find_spec("triton"), reason="this build of torch has no triton")
def test_an_optimiser_after_rendering_does_not_end_the_process():
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True)
    assert done.returncode == 0, f"exit code {done.returncode}: {done.stderr[-500:]}"
    assert "both" in done.stdout.split()
