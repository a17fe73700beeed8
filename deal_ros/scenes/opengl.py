# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Bring MuJoCo up with an off-screen OpenGL that this machine has.

MuJoCo reads ``MUJOCO_GL`` once, while it is imported, so every import of it in this package goes through here.
"""

from __future__ import annotations

import ctypes.util
import importlib
import importlib.util
import os
from contextlib import suppress
from pathlib import Path
from types import ModuleType

_REMEDY = "install one (Debian, Ubuntu): sudo apt install libosmesa6 libegl1 libgl1-mesa-dri"


class OpenGLError(OSError):
    """No usable off-screen OpenGL, or no MuJoCo; the message names the packages to install."""


def choose_backend() -> str:
    """Name an off-screen OpenGL that is installed: ``egl`` where there is a GPU, else ``osmesa``, else ``egl``.

    Raises:
        OpenGLError: if neither library is there.
    """
    egl, osmesa = ctypes.util.find_library("EGL"), ctypes.util.find_library("OSMesa")
    gpu = Path("/dev/nvidia0").exists() or any(Path("/dev/dri").glob("renderD*"))
    if egl and (gpu or not osmesa):
        return "egl"
    if osmesa:
        return "osmesa"
    raise OpenGLError(f"rendering needs an off-screen OpenGL library and none was found; {_REMEDY}")


def import_mujoco(rendering: bool = True) -> ModuleType:
    """Import MuJoCo, after setting ``MUJOCO_GL`` where nobody has set it.

    Args:
        rendering: ``False`` when only meshes are read: then a missing OpenGL library is no error.

    Raises:
        OpenGLError: if MuJoCo is not installed, or no OpenGL library is and ``rendering`` is asked for.
    """
    if not os.environ.get("MUJOCO_GL"):
        try:
            os.environ["MUJOCO_GL"] = choose_backend()
        except OpenGLError:
            if rendering:
                raise
            os.environ["MUJOCO_GL"] = "disable"
    elif rendering and os.environ["MUJOCO_GL"] == "disable":
        raise OpenGLError(
            f"rendering needs an off-screen OpenGL library and none is in use (MUJOCO_GL=disable); {_REMEDY}"
        )
    _load_triton()
    try:
        import mujoco
    except ModuleNotFoundError as error:
        raise OpenGLError(
            f"rendered scenes need MuJoCo ({error}); install it: python3 -m pip install mujoco"
        ) from error
    except (ImportError, AttributeError, RuntimeError, OSError) as error:
        if not rendering and os.environ["MUJOCO_GL"] != "disable":
            os.environ["MUJOCO_GL"] = "disable"  # the library asked for is not there, but meshes need none
            return import_mujoco(rendering=False)
        backend = os.environ["MUJOCO_GL"]
        raise OpenGLError(f"MuJoCo cannot use MUJOCO_GL={backend} here ({error}); {_REMEDY}") from error
    if tuple(int(part) for part in mujoco.__version__.split(".")[:2]) < (3, 3) or not hasattr(mujoco, "mjtLightType"):
        raise OpenGLError(f"MuJoCo must be 3.3.7 or newer, got {mujoco.__version__}; python3 -m pip install -U mujoco")
    return mujoco


def _load_triton() -> None:
    """Bring in triton, which CUDA builds of torch use, before Mesa.

    Both carry an LLVM of their own. After Mesa's software renderer the import of triton ends the process with a
    segmentation fault, and torch imports it by itself with the first optimiser; the other way round they get on.
    """
    if importlib.util.find_spec("triton") is not None:
        with suppress(Exception):  # broken or for another GPU: torch will not get far with it either
            importlib.import_module("triton")
