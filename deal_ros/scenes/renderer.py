# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""SceneRenderer: Scene and camera pose → Sample with colour, metric depth, true mask and camera matrix (MuJoCo)."""

from __future__ import annotations

import math
import weakref
from types import TracebackType
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from deal_ros.sample import IGNORE_ID, Sample
from deal_ros.scenes.model import build_model
from deal_ros.scenes.objects import VISUAL_GROUP
from deal_ros.scenes.opengl import OpenGLError, import_mujoco
from deal_ros.scenes.scene import CameraPose, Scene

FRAME_ID = "camera_color_optical_frame"


class SceneRenderer:
    """Renders scenes off screen. One at a time per thread: an OpenGL context belongs to the thread that made it.

    Args:
        size: (height, width) in pixels, each 16..2048.
        shadows: let the key light cast shadows: more like a room, about twice as slow on a CPU.
        supersampling: colour is drawn this many times finer and averaged, 1..4, as a lens and a sensor would; ids and
            depths, which must not blend, are drawn at ``size``.
        min_visible_pixels: a class with fewer pixels is not labelled, and its pixels are 255 in the mask. ``None``
            takes 1/5000 of the image: what a person would call visible.

    Raises:
        ValueError: if ``size`` or ``supersampling`` is out of range.
        OpenGLError: if MuJoCo or an OpenGL library is missing; the message names the packages.

    Example:
        >>> from deal_ros.scenes import SceneRenderer, onboarding_scene  # doctest: +SKIP
        >>> with SceneRenderer((240, 320)) as renderer:  # doctest: +SKIP
        ...     renderer.load(onboarding_scene("milk"))
        ...     sample = renderer.render(0.25)
    """

    def __init__(
        self,
        size: tuple[int, int] = (240, 320),
        shadows: bool = False,
        supersampling: int = 2,
        min_visible_pixels: int | None = None,
    ) -> None:
        height, width = size
        if not (16 <= height <= 2048 and 16 <= width <= 2048):
            raise ValueError(f"size must be (height, width) of 16..2048 pixels each, got {size}")
        if not 1 <= supersampling <= 4:
            raise ValueError(f"supersampling must be 1..4, got {supersampling}")
        self.size, self.shadows, self.supersampling = (int(height), int(width)), shadows, supersampling
        self._fine_size = (int(height) * supersampling, int(width) * supersampling)
        self.min_visible_pixels = max(1, height * width // 5000) if min_visible_pixels is None else min_visible_pixels
        self._mujoco = import_mujoco()
        try:
            self._gl = self._mujoco.GLContext(self._fine_size[1], self._fine_size[0])
            self._gl.make_current()
        except Exception as error:  # each backend raises its own kinds
            raise OpenGLError(
                f"no OpenGL context of {width}x{height} pixels ({type(error).__name__}: {error}); install the"
                " libraries (Debian, Ubuntu): sudo apt install libosmesa6 libegl1 libgl1-mesa-dri, or set MUJOCO_GL to"
                " egl or osmesa"
            ) from error
        self.scene: Scene | None = None
        self._context: Any = None
        self._free_gl = weakref.finalize(self, self._gl.free)  # also at exit, while PyOpenGL is still whole

    def __enter__(self) -> SceneRenderer:
        """Return itself; leaving the block closes it."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close."""
        self.close()

    def load(self, scene: Scene) -> None:
        """Build ``scene``; about 0.1 s per object it has, more for the first use of each."""
        mujoco = self._mujoco
        if not self._free_gl.alive:
            raise RuntimeError("this renderer is closed; make a new one")
        self._free_context()
        self._model, self._class_of_geom = build_model(scene, self._fine_size, self.shadows)
        self._data = mujoco.MjData(self._model)
        mujoco.mj_forward(self._model, self._data)
        self._gl.make_current()
        try:
            self._context = mujoco.MjrContext(self._model, mujoco.mjtFontScale.mjFONTSCALE_100)
        except mujoco.FatalError as error:
            raise OpenGLError(f"OpenGL does not work ({error}); set MUJOCO_GL to egl or osmesa") from error
        mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN, self._context)
        self._context.readDepthMap = mujoco.mjtDepthMap.mjDEPTH_ZEROFAR
        self._visual = mujoco.MjvScene(self._model, maxgeom=self._model.ngeom + 16)
        self._option = mujoco.MjvOption()
        self._option.geomgroup[:] = 0
        self._option.geomgroup[VISUAL_GROUP] = 1
        self._camera = mujoco.MjvCamera()
        self._camera.type = mujoco.mjtCamera.mjCAMERA_FIXED
        self._camera.fixedcamid = 0
        self.scene = scene

    def render(self, camera: float | CameraPose) -> Sample:
        """Take a picture of the loaded scene.

        Args:
            camera: phase 0..1 on the scene's orbit, or a pose.

        Returns:
            All fields filled: ``depth_m`` is the true depth along the optical axis, registered by construction;
            ``mask`` ids follow ``scene.classes``; ``labels`` are the classes in view; ``stamp_ns`` is 0.

        Raises:
            RuntimeError: if no scene is loaded.
        """
        if self.scene is None:
            raise RuntimeError("no scene: call load(scene) before render")
        pose = camera if isinstance(camera, CameraPose) else self.scene.orbit.pose(camera)
        self._point_camera(pose)
        rgb = self._color()
        mask, depth_m = self._mask_and_depth()
        counts = np.bincount(mask.ravel(), minlength=256)
        visible = []
        for class_id, name in enumerate(self.scene.classes, start=1):
            if counts[class_id] >= self.min_visible_pixels:
                visible.append(name)
            elif counts[class_id]:
                mask[mask == class_id] = IGNORE_ID
        where = f"{pose}" if isinstance(camera, CameraPose) else f"{camera % 1.0:.4f}"
        return Sample(
            rgb=rgb,
            depth_m=depth_m,
            labels=frozenset(visible),
            mask=mask,
            camera_matrix=self.camera_matrix,
            frame_id=FRAME_ID,
            source=f"{self.scene.name}@{where}",
        )

    @property
    def camera_matrix(self) -> NDArray[np.float64]:
        """Pinhole matrix float64 (3, 3) of the loaded scene's camera; pixel centres have integer coordinates."""
        if self.scene is None:
            raise RuntimeError("no scene: call load(scene) before asking for its camera matrix")
        height, width = self.size
        focal = height / 2 / math.tan(math.radians(self.scene.orbit.vertical_fov_deg) / 2)
        return np.array([[focal, 0, (width - 1) / 2], [0, focal, (height - 1) / 2], [0, 0, 1]], np.float64)

    @property
    def opengl(self) -> str:
        """Return renderer and version of the OpenGL library in use, for manifests; pixels depend on it."""
        from OpenGL import GL  # MuJoCo's own dependency; only whole after MuJoCo has chosen a platform

        self._gl.make_current()
        parts = (GL.glGetString(GL.GL_RENDERER), GL.glGetString(GL.GL_VERSION))
        return " | ".join(part.decode(errors="replace") for part in parts if part) or "unknown"

    def close(self) -> None:
        """Free the OpenGL context; the renderer cannot be used afterwards. Calling it twice is harmless."""
        self._free_context()
        self._free_gl()
        self.scene = None

    def _free_context(self) -> None:
        if self._context is not None and self._free_gl.alive:
            self._gl.make_current()
            self._context.free()
        self._context = None

    def _point_camera(self, pose: CameraPose) -> None:
        # MuJoCo's camera looks along its -z with y up; the optical frame has z forward and y down.
        axes = pose.rotation() @ np.diag([1.0, -1.0, -1.0])
        self._data.cam_xpos[0] = pose.position
        self._data.cam_xmat[0] = axes.ravel()

    def _color(self) -> NDArray[np.uint8]:
        fine = self._draw(self._fine_size, None)
        height, width = self.size
        if self.supersampling == 1:
            return fine
        return cv2.resize(fine, (width, height), interpolation=cv2.INTER_AREA)  # type: ignore[return-value]

    def _mask_and_depth(self) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        flags, mujoco = self._visual.flags, self._mujoco
        raw = np.empty((*self.size, 1), np.float32)
        flags[mujoco.mjtRndFlag.mjRND_SEGMENT] = 1
        flags[mujoco.mjtRndFlag.mjRND_IDCOLOR] = 1
        try:
            colors = self._draw(self.size, raw).astype(np.int32)
        finally:
            flags[mujoco.mjtRndFlag.mjRND_SEGMENT] = 0
            flags[mujoco.mjtRndFlag.mjRND_IDCOLOR] = 0
        drawn = colors[..., 0] + 256 * colors[..., 1]  # 0 is nothing, else 1 + segmentation id
        table = np.zeros(self._visual.ngeom + 1, np.uint8)
        for geom in self._visual.geoms[: self._visual.ngeom]:
            if geom.segid >= 0 and geom.objtype == mujoco.mjtObj.mjOBJ_GEOM:
                table[geom.segid + 1] = self._class_of_geom[geom.objid]
        mask = table[np.minimum(drawn, len(table) - 1)]
        near = self._model.vis.map.znear * self._model.stat.extent
        far = self._model.vis.map.zfar * self._model.stat.extent
        buffer = raw[::-1, :, 0].astype(np.float64)  # 1 at near, 0 at far
        depth_m = near * far / (near + buffer * (far - near))
        depth_m[buffer <= 0] = 0.0  # nothing there
        return mask, np.ascontiguousarray(depth_m.astype(np.float32))

    def _draw(self, size: tuple[int, int], depth: NDArray[np.float32] | None) -> NDArray[np.uint8]:
        mujoco, (height, width) = self._mujoco, size
        self._gl.make_current()
        category = mujoco.mjtCatBit.mjCAT_ALL
        mujoco.mjv_updateScene(self._model, self._data, self._option, None, self._camera, category, self._visual)
        self._visual.flags[mujoco.mjtRndFlag.mjRND_SHADOW] = int(self.shadows and depth is None)
        self._visual.flags[mujoco.mjtRndFlag.mjRND_REFLECTION] = 0
        viewport = mujoco.MjrRect(0, 0, width, height)
        mujoco.mjr_render(viewport, self._visual, self._context)
        rgb = np.empty((height, width, 3), np.uint8)
        mujoco.mjr_readPixels(rgb, depth, viewport, self._context)
        return np.ascontiguousarray(rgb[::-1])
