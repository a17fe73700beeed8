# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Every parameter of every node, one row each: the nodes, config/*.yaml and docs/parameters.md all come from here.

No ROS is imported, so that the tables can be read, written out and tested anywhere.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

LIVE = "live"
"""Takes effect at once."""
CONFIGURE = "configure"
"""Read when the node is configured; refused while it is."""
START = "start"
"""Fixed when the process starts (read-only)."""


class ParameterError(ValueError):
    """A parameter value that cannot be used; the message says what is allowed."""


@dataclass(frozen=True)
class Parameter:
    """One row of a node's table.

    Args:
        name: with its unit as a suffix.
        default: bool, int, float, str or a tuple of str; its type is the parameter's type.
        description: what it does, in one sentence.
        range: lowest and highest accepted number, both inclusive.
        choices: accepted texts.
        changes: :data:`LIVE`, :data:`CONFIGURE` or :data:`START`.
        example: of a list of texts that is empty by default, for the parameter file.
    """

    name: str
    default: bool | int | float | str | tuple[str, ...]
    description: str
    range: tuple[float, float] | None = None
    choices: tuple[str, ...] = ()
    changes: str = LIVE
    example: tuple[str, ...] = ()

    @property
    def kind(self) -> type:
        """``bool``, ``int``, ``float``, ``str`` or ``list`` (of str)."""
        return list if isinstance(self.default, tuple) else type(self.default)

    @property
    def constraints(self) -> str:
        """Say what is allowed, for people."""
        name = {
            bool: "true or false",
            int: "a whole number",
            float: "a number with a point, such as 10.0",
            str: "a text",
        }
        text = f"must be {name.get(self.kind, 'a list of texts')}"
        if self.range is not None:
            text += f" from {self.range[0]:g} to {self.range[1]:g}"
        if self.choices:
            text = f"must be one of {', '.join(self.choices)}"
        return text


def plain_value(row: Parameter, value: Any) -> Any:
    """ROS value → plain Python: arrays become tuples, the placeholder of an empty list is dropped."""
    if row.kind is list and isinstance(value, (list, tuple)):
        return tuple(item for item in value if item != "")
    return value


def check_value(row: Parameter, value: Any) -> Any:
    """Return ``value`` if the row allows it.

    Raises:
        ParameterError: naming the parameter, what is allowed and what was given.

    Example:
        >>> check_value(Parameter("rate_hz", 10.0, "frames per second", range=(0.1, 60.0)), 15.0)
        15.0
    """
    wanted = tuple if row.kind is list else row.kind
    fits = isinstance(value, wanted) and not (row.kind is int and isinstance(value, bool))
    if fits and row.kind is list:
        fits = all(isinstance(item, str) for item in value)
    if fits and row.range is not None:
        fits = row.range[0] <= value <= row.range[1]
    if fits and row.choices:
        fits = value in row.choices
    if not fits:
        raise ParameterError(f"parameter {row.name} {row.constraints}, got {value!r}")
    return value


RELIABILITIES = ("matched", "reliable", "best_effort")
_COMMON = (
    Parameter("autostart", True, "Configure and activate by itself, without a lifecycle manager.", changes=START),
    Parameter("diagnostics_period_s", 1.0, "Time between two messages on /diagnostics.", (0.1, 60.0), changes=START),
)


def _input(name: str, what: str) -> Parameter:
    return Parameter(
        f"{name}_reliability",
        "matched",
        f"Reliability of the {what} subscription; matched: reliable where every publisher offers it, else best effort.",
        choices=RELIABILITIES,
        changes=CONFIGURE,
    )


_IMAGE_INPUTS = (
    _input("rgb", "colour image"),
    _input("depth", "depth image"),
    _input("camera_info", "camera info"),
    Parameter(
        "rgb_transport",
        "raw",
        "raw: rgb/image; compressed: rgb/image/compressed.",
        choices=("raw", "compressed"),
        changes=CONFIGURE,
    ),
    Parameter(
        "depth_transport",
        "raw",
        "raw: depth/image; compressedDepth: depth/image/compressedDepth.",
        choices=("raw", "compressedDepth"),
        changes=CONFIGURE,
    ),
    Parameter(
        "slop_ms", 20.0, "Largest stamp difference of a colour and a depth image that belong together.", (0.0, 1e3)
    ),
    Parameter("max_megapixels", 16.0, "Images with more pixels than this are refused.", (0.01, 200.0)),
    Parameter("input_timeout_s", 5.0, "Warn when no usable input came for this long.", (0.5, 600.0)),
)

CAMERA_SIMULATOR = (
    *_COMMON,
    Parameter(
        "scenario", "onboarding", "onboarding: one object; tabletop: several.", choices=("onboarding", "tabletop")
    ),
    Parameter("object", "", "Class in view in the onboarding scenario; empty: the first of objects."),
    Parameter(
        "objects", ("milk", "ketchup", "butter", "popcorn"), "Class names in id order: ids in ground_truth/mask."
    ),
    Parameter("seed", 0, "Seed of the scene: textures, poses, light and camera path.", (0, 2**31 - 1)),
    Parameter("split", "train", "Which textures and clutter objects may occur.", choices=("train", "val", "test")),
    Parameter("clutter", 2, "Objects in the scene that belong to no class.", (0, 8)),
    Parameter("resting_pose", 0, "Resting pose of the object in the onboarding scenario.", (0, 1)),
    Parameter("objects_in_view", 4, "Objects with a class in the tabletop scenario.", (1, 14)),
    Parameter("width", 640, "Image width in pixels.", (16, 1920), changes=CONFIGURE),
    Parameter("height", 480, "Image height in pixels.", (16, 1080), changes=CONFIGURE),
    Parameter("rate_hz", 10.0, "Frames published per second.", (0.1, 60.0)),
    Parameter("views", 48, "Camera positions on the orbit, rendered once and then replayed.", (1, 720)),
    Parameter("shadows", False, "Render shadows: three times the cost.", changes=CONFIGURE),
    Parameter("depth_encoding", "16UC1", "16UC1: millimetres; 32FC1: metres.", choices=("16UC1", "32FC1")),
    Parameter("depth_noise", True, "Add noise like that of a stereo depth camera: quantisation, jitter, holes."),
    Parameter(
        "reliability", "reliable", "Reliability offered.", choices=("reliable", "best_effort"), changes=CONFIGURE
    ),
    Parameter("frame_id", "camera_color_optical_frame", "Frame of the images.", changes=CONFIGURE),
)

SAMPLE_COLLECTOR = (
    *_COMMON,
    *_IMAGE_INPUTS,
    Parameter("store", "~/.ros/deal/store", "Folder of the sample store; made when missing.", changes=CONFIGURE),
    Parameter(
        "classes",
        (),
        "Class names in id order; empty: those that the store has. A store keeps names for ever.",
        changes=CONFIGURE,
        example=("milk", "ketchup"),
    ),
    Parameter("automatic", True, "Store keyframes by themselves while labels are set; false: only on ~/capture."),
    Parameter("sequence", "", "Name of the recording, from the next labels on; empty: a new one whenever they change."),
    Parameter("min_interval_s", 0.5, "Least time between two keyframes; 0 switches the test off.", (0.0, 3600.0)),
    Parameter("min_view_change", 0.1, "Least change since the last keyframe; 1 degree is about 0.1.", (0.0, 2.0)),
    Parameter("min_sharpness", 0.5, "Least sharpness beside that of the frames before; 0 keeps all.", (0.0, 1.0)),
    Parameter("min_depth", 0.02, "Least part of the pixels that has a depth.", (0.0, 1.0)),
    Parameter("max_depth_m", 10.0, "Farther depth counts as no return.", (0.1, 1000.0)),
    Parameter(
        "quota_per_class", 0, "Samples per class after which gathering stops by itself; 0: no limit.", (0, 10**7)
    ),
    Parameter("min_disk_free_gb", 1.0, "Gathering stops when less space is left.", (0.0, 1e5)),
    Parameter("undo_count", 1, "Samples that one call of ~/undo removes.", (1, 10000)),
)

TRAINER = (
    *_COMMON,
    Parameter("store", "~/.ros/deal/store", "Folder of the sample store to learn from."),
    Parameter("recipe", "", "Recipe: a file, or the name of one in config/recipes, such as robot; needed by ~/start."),
    Parameter("models_folder", "~/.ros/deal/models", "Runs and bundles are written below this folder."),
    Parameter(
        "options",
        (),
        "More arguments of `deal run`: --losses, --seeds, --smoke, --set or --device.",
        example=("--set", "train_cam.losses.deal_weight.value=4"),
    ),
    Parameter("min_samples_per_class", 8, "~/start is refused while a class has fewer, but some.", (1, 10**6)),
    Parameter(
        "resume",
        True,
        "~/start goes on with a cancelled or crashed run of the same recipe, on the samples that it began with.",
    ),
    Parameter("niceness", 15, "Priority of the training process: 19 yields most.", (0, 19)),
    Parameter("threads", 1, "CPU threads of the training process.", (1, 256)),
    Parameter("min_inference_rate_hz", 0.0, "Training pauses while the segmenter is slower; 0: never.", (0.0, 1000.0)),
    Parameter("stall_timeout_s", 600.0, "A training process that is silent for longer is ended.", (5.0, 1e6)),
)

SEGMENTER = (
    *_COMMON,
    *_IMAGE_INPUTS,
    Parameter(
        "model",
        "",
        "Model bundle to start with, a folder or a name in share/deal_ros/models; empty: the last one trained in"
        " models_folder.",
        changes=CONFIGURE,
    ),
    Parameter(
        "fallback_model",
        "",
        "Likewise, while model is empty and nothing has been trained; empty: wait for the model topic.",
        changes=CONFIGURE,
    ),
    Parameter(
        "models_folder", "~/.ros/deal/models", "Bundles named on the model topic must lie in it.", changes=CONFIGURE
    ),
    Parameter("backend", "auto", "What runs the network.", choices=("auto", "torch", "onnxruntime"), changes=CONFIGURE),
    Parameter(
        "precision",
        "auto",
        "auto: fp16 on a GPU, fp32 elsewhere.",
        choices=("auto", "fp32", "fp16", "bf16"),
        changes=CONFIGURE,
    ),
    Parameter("device", "auto", "cpu, cuda, cuda:N or auto.", changes=CONFIGURE),
    Parameter("threads", 0, "CPU threads of the network; 0: the library's choice.", (0, 256), changes=CONFIGURE),
    Parameter("fallback_to_cpu", True, "When the GPU has no memory left go on with the CPU.", changes=CONFIGURE),
    Parameter("min_confidence", 0.0, "Pixels less certain than this become 255 (unlabelled).", (0.0, 1.0)),
    Parameter("smoothing", 0.0, "Weight of the past in the confidence vote over time; 0: none.", (0.0, 0.95)),
    Parameter("overlay_alpha", 0.55, "Weight of the colour in the overlay.", (0.0, 1.0)),
    Parameter("output_depth", 5, "Queue depth of the outputs.", (1, 100), changes=CONFIGURE),
    Parameter(
        "output_reliability",
        "reliable",
        "Reliability of the outputs.",
        choices=("reliable", "best_effort"),
        changes=CONFIGURE,
    ),
    Parameter("warn_latency_ms", 500.0, "Diagnostics warn when the latency p95 is above this.", (1.0, 1e5)),
    Parameter("stuck_after_s", 10.0, "Diagnostics report an error when one frame takes longer.", (0.5, 600.0)),
)

TABLES: dict[str, tuple[Parameter, ...]] = {
    "camera_simulator": CAMERA_SIMULATOR,
    "sample_collector": SAMPLE_COLLECTOR,
    "trainer": TRAINER,
    "segmenter": SEGMENTER,
}
