# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The package files agree with each other and with the sources."""

from __future__ import annotations

import ast
import importlib.metadata
import importlib.util
import re
import runpy
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from deal_ros.students import read_bundle

ROOT = Path(__file__).resolve().parents[1]
NODES = ("camera_simulator", "sample_collector", "trainer", "segmenter")

# import name → rosdep key or package of the ROS index; None: no usable rosdep key exists, so pip brings it, or it is
# optional and its absence has a clear error (extras in setup.py).
KEYS = {
    "cv2": "python3-opencv",
    "matplotlib": "python3-matplotlib",
    "numpy": "python3-numpy",
    "onnxruntime": "python3-onnxruntime-pip",
    "psutil": "python3-psutil",
    "rosbags": "python3-rosbags-pip",
    "scipy": "python3-scipy",
    "timm": "python3-timm-pip",
    "tqdm": "python3-tqdm",
    "yaml": "python3-yaml",
    "torch": None,  # rosdep has keys, of apt packages that are too old or missing: package.xml says more
    "torchvision": None,  # likewise
    "huggingface_hub": None,  # comes with timm
    "safetensors": None,  # comes with timm
    "lz4": None,  # comes with rosbags
    "backports": None,  # backports.zstd, comes with rosbags
    "compression": None,  # standard library from Python 3.14 on
    "mujoco": None,
    "OpenGL": None,  # comes with mujoco
    "triton": None,  # comes with CUDA builds of torch
    "onnx": None,
    "pycocotools": None,
    "pydensecrf": None,
    "imgviz": None,
    "efficientnet_lite_pytorch": None,
    "PIL": None,
    "skimage": None,
    "sklearn": None,
}
OPTIONAL = {name for name, key in KEYS.items() if key is None}
# what package.xml of ament_flake8 0.19 names
AMENT_FLAKE8 = (
    "flake8",
    "flake8-blind-except",
    "flake8-builtins",
    "flake8-class-newline",
    "flake8-comprehensions",
    "flake8-deprecated",
    "flake8-docstrings",
    "flake8-import-order",
    "flake8-quotes",
)


@pytest.fixture(scope="module")
def manifest() -> ElementTree.Element:
    return ElementTree.parse(ROOT / "package.xml").getroot()


@pytest.fixture(scope="module")
def setup_arguments() -> dict:
    """What setup.py hands to setuptools, without running a build."""
    import setuptools

    caught: dict = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(setuptools, "setup", lambda **arguments: caught.update(arguments))
        patch.chdir(ROOT)
        runpy.run_path(str(ROOT / "setup.py"))
    return caught


def imported_names(folder: Path) -> dict[str, Path]:
    names: dict[str, Path] = {}
    for path in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            found = []
            if isinstance(node, ast.Import):
                found = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and not node.level:
                found = [node.module or ""]
            elif isinstance(node, ast.Call) and ast.unparse(node.func) == "importlib.import_module":
                found = [arg.value for arg in node.args if isinstance(arg, ast.Constant)]
            for name in found:
                names.setdefault(name.split(".")[0], path)
    return {n: p for n, p in names.items() if n not in sys.stdlib_module_names and n not in {"deal_ros", "__future__"}}


def test_version_and_licence_agree(manifest, setup_arguments):
    import deal_ros

    assert manifest.findtext("version") == setup_arguments["version"]
    assert getattr(deal_ros, "__version__", setup_arguments["version"]) == setup_arguments["version"]
    assert manifest.findtext("license") == setup_arguments["license"] == "Apache-2.0"
    assert "Apache License" in (ROOT / "LICENSE").read_text()
    assert manifest.get("format") == "3"
    assert f"{setup_arguments['version']} " in (ROOT / "CHANGELOG.rst").read_text()


def test_every_import_is_declared(manifest):
    declared = {element.text for tag in ("depend", "exec_depend") for element in manifest.iter(tag)}
    wrong = []
    for name, path in imported_names(ROOT / "deal_ros").items() | imported_names(ROOT / "launch").items():
        key = KEYS.get(name, name)
        if name in OPTIONAL or key in declared:
            continue
        wrong.append(f"{path.relative_to(ROOT)} imports {name}: no <exec_depend>{key}</exec_depend> in package.xml")
    assert not wrong, "\n".join(wrong)


def test_rosdep_is_not_asked_for_torch(manifest, setup_arguments):
    """`rosdep install` would end at a package that Ubuntu 24.04 does not have, or bring 22.04's torch 1.8."""
    assert not [element.text for element in manifest.iter() if (element.text or "").startswith("python3-torch")]
    assert "torch>=2.5" in setup_arguments["install_requires"]
    assert "'torch>=2.5' torchvision" in (ROOT / "docs" / "on_your_robot.md").read_text()


def test_no_declared_dependency_is_unused(manifest):
    used = {KEYS.get(n, n) for folder in ("deal_ros", "launch") for n in imported_names(ROOT / folder)}
    texts = (ROOT / "deal_ros" / "ros" / "launching.py").read_text()  # packages that it starts nodes of
    declared = {element.text for element in manifest.iter("exec_depend")} - {"ros2launch"}
    declared -= {"ros2bag", "rosbag2_storage_mcap"}  # the command of record.launch.py and its default storage
    unused = {key for key in declared if key not in used and key not in texts}
    assert not unused


def test_every_node_has_an_executable(setup_arguments):
    scripts = dict(entry.split(" = ") for entry in setup_arguments["entry_points"]["console_scripts"])
    assert set(scripts) == {"deal", *NODES}
    for target in scripts.values():
        module, function = target.split(":")
        spec = importlib.util.find_spec(module)
        assert spec is not None, f"{module} does not exist"
        body = ast.parse(Path(spec.origin).read_text()).body
        assert any(isinstance(s, ast.FunctionDef) and s.name == function for s in body), f"{target} does not exist"


def test_what_is_installed_covers_the_folders(setup_arguments):
    installed = {name for _, names in setup_arguments["data_files"] for name in names}
    assert {"resource/deal_ros", "package.xml", "scripts/deal"} <= installed
    for top in ("launch", "config", "models"):
        for path in (ROOT / top).rglob("*"):
            if path.is_file() and path.suffix != ".pyc":
                assert str(path.relative_to(ROOT)) in installed


def test_every_folder_of_the_package_is_a_python_package():
    folders = {path.parent for path in (ROOT / "deal_ros").rglob("*.py")}
    assert not [str(f.relative_to(ROOT)) for f in folders if not (f / "__init__.py").is_file()]


def test_executables_go_where_ros2_run_looks():
    text = (ROOT / "setup.cfg").read_text()
    assert "script_dir=$base/lib/deal_ros" in text
    assert "install_scripts=$base/lib/deal_ros" in text


@pytest.mark.parametrize("path", sorted((ROOT / "scripts").glob("*.lock")), ids=lambda path: path.name)
def test_lock_files_pin_exactly(path):
    pinned: dict[str, list[str]] = {}
    for line in path.read_text().splitlines():
        if line.startswith("#"):
            continue
        match = re.fullmatch(r'([\w.\-]+)==([\w.]+)( ; python_version (<|>=) "3\.\d+")?', line)
        assert match, f"must be name==version [; python_version …], got {line!r}"
        pinned.setdefault(match[1].lower(), []).append(match[3] or "")
    twice = [name for name, markers in pinned.items() if len(markers) > 1 and "" in markers]
    assert not twice


def test_lock_and_ranges_agree(setup_arguments):
    from packaging.requirements import Requirement

    locked: dict[str, list[str]] = {}
    for path in (ROOT / "scripts").glob("*.lock"):
        for line in path.read_text().splitlines():
            if "==" in line and not line.startswith("#"):
                name, version = line.split(" ;")[0].split("==")
                locked.setdefault(name.lower().replace("_", "-"), []).append(version)
    wanted = [*setup_arguments["install_requires"], *(r for e in setup_arguments["extras_require"].values() for r in e)]
    for text in wanted:
        requirement = Requirement(text)
        versions = locked.get(requirement.name.lower().replace("_", "-"))
        assert versions, f"{text} of setup.py is in no lock file"
        assert all(v in requirement.specifier for v in versions), f"{text}: locked {versions}"


def tracked_files() -> list[Path]:
    done = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        pytest.skip("not a git checkout")
    return [ROOT / name for name in done.stdout.split("\0") if name and (ROOT / name).is_file()]


def test_no_tracked_file_names_a_private_place():
    """Paths of one machine and registries' hosts help nobody else."""
    places = re.compile(rb"/[w]ork/|/[r]oot/|/home/[a-z]|pypi\.org|files\.pythonhosted|download\.pytorch\.org")
    wrong = [
        str(path.relative_to(ROOT))
        for path in tracked_files()
        if path.suffix not in {".png", ".jpg", ".webp", ".safetensors", ".mcap", ".db3"}
        and places.search(path.read_bytes())
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    "folder", sorted(p.parent for p in (ROOT / "models").glob("*/bundle.json")), ids=lambda p: p.name
)
def test_a_model_that_comes_along_is_small_can_be_read_and_has_its_card(folder):
    _, spec = read_bundle(folder)
    card = (folder / "README.md").read_text(encoding="utf-8")
    missing = [word for word in (spec.version, *spec.classes, "mIoU", "commit", "seed", "Licence") if word not in card]
    assert not missing
    assert sum(path.stat().st_size for path in folder.iterdir()) < 10e6


def test_shell_scripts_parse():
    for path in [*sorted((ROOT / "scripts").glob("*.sh")), ROOT / ".ci" / "run"]:
        subprocess.run(["bash", "-n", str(path)], check=True)
        assert path.stat().st_mode & 0o100, f"{path} must be executable"


def is_installed(distribution: str) -> bool:
    try:
        return bool(importlib.metadata.version(distribution))
    except importlib.metadata.PackageNotFoundError:
        return False


def test_flake8_reports_nothing():
    """As `ament_flake8 --config .flake8` on a robot."""
    missing = [name for name in AMENT_FLAKE8 if not is_installed(name)]
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)}")
    files = [str(path.relative_to(ROOT)) for path in tracked_files() if path.suffix == ".py"]
    assert len(files) > 200
    command = [sys.executable, "-m", "flake8", "--jobs", "1", "--config", ".flake8", *files]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert not done.returncode, done.stdout[-4000:] + done.stderr[-1000:]
