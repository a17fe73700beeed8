# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The house keeps its shape: who may import whom, and what may not be called anywhere. Read from the sources."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "deal_ros"
SOURCES = sorted(PACKAGE.rglob("*.py"))
WRITTEN = sorted(
    path
    for folder in ("deal_ros", "test", "launch", "benchmarks", "examples", "scripts")
    for path in (ROOT / folder).rglob("*.py")
)

# Each room may import its own floor and the floors below.
FLOORS = (
    {"sample", "labels", "config", "visualization", "filters", "metrics", "backbones", "pairing", "images"},
    {"losses"},
    {"cams", "pseudo_labels", "students", "datasets", "scenes"},
    {"engine"},
    {"cli", "ros"},
)
ROS_MODULES = re.compile(
    r"(rclpy|rcl_interfaces|\w+_msgs|std_srvs|builtin_interfaces|cv_bridge|message_filters|launch(_ros)?|ament_\w+)$"
)
NETWORK_MODULES = {"requests", "urllib", "http", "socket", "ftplib", "huggingface_hub", "httpx", "smtplib", "ssl"}
PICKLING = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}


def floor(room: str) -> int:
    return next((level for level, rooms in enumerate(FLOORS) if room in rooms), -1)


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def imported(node: ast.AST, path: Path) -> list[str]:
    """Absolute dotted names that an import statement asks for."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        base = node.module or ""
        if node.level:
            package = list(path.relative_to(ROOT).with_suffix("").parts[: -node.level])
            base = ".".join([*package, *filter(None, [node.module])])
        # `from deal_ros import losses` names the room only after the import.
        return [f"{base}.{alias.name}" for alias in node.names] if base == "deal_ros" else [base]
    return []


def imports(path: Path) -> Iterator[tuple[int, str]]:
    """Line and name of every import of a file, wherever it stands."""
    for node in ast.walk(tree(path)):
        for name in imported(node, path):
            yield node.lineno, name


def effective_imports(path: Path) -> Iterator[tuple[int, str]]:
    """Line and name of the imports that run when the module is imported: not those in functions or TYPE_CHECKING."""
    pending: list[ast.AST] = list(tree(path).body)
    while pending:
        node = pending.pop()
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            continue
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        for name in imported(node, path):
            yield node.lineno, name
        pending.extend(ast.iter_child_nodes(node))


def where(path: Path, line: int) -> str:
    return f"{path.relative_to(ROOT) if path.is_relative_to(ROOT) else path}:{line}"


def test_every_room_has_its_floor():
    rooms = {room_of(path) for path in SOURCES} - {"__init__"}
    assert not {room for room in rooms if floor(room) < 0}, "add the room to FLOORS"


def test_imports_go_down_only():
    wrong = []
    for path in SOURCES:
        room = room_of(path)
        for line, name in imports(path):
            parts = name.split(".")
            if parts[0] != "deal_ros" or len(parts) < 2 or room == "__init__":
                continue
            target = parts[1]
            if target != room and floor(target) > floor(room):
                wrong.append(f"{where(path, line)}: {room} imports {target}")
    assert not wrong, "\n".join(wrong)


def test_nobody_imports_the_porch():
    wrong = [
        where(path, line)
        for path in SOURCES
        if room_of(path) != "ros"
        for line, name in imports(path)
        if name.startswith("deal_ros.ros") and room_of(path) != "cli"
    ]
    # The command line may start the porch (demo, label), but only when such a verb runs.
    wrong += [
        where(path, line)
        for path in SOURCES
        if room_of(path) == "cli"
        for line, name in effective_imports(path)
        if name.startswith("deal_ros.ros")
    ]
    assert not wrong, "\n".join(wrong)


def test_only_the_porch_imports_ros():
    wrong = [
        f"{where(path, line)}: {name}"
        for path in SOURCES
        if room_of(path) != "ros"
        for line, name in imports(path)
        if ROS_MODULES.match(name.split(".")[0])
    ]
    assert not wrong, "\n".join(wrong)


def test_importing_needs_no_network_module():
    wrong = [
        f"{where(path, line)}: {name}"
        for path in SOURCES
        for line, name in effective_imports(path)
        if name.split(".")[0] in NETWORK_MODULES
    ]
    assert not wrong, "\n".join(wrong)


def forbidden(path: Path) -> Iterator[str]:
    """Calls through which a message, a bag or a bundle could run code, and imports of what unpickles."""
    for line, name in imports(path):
        if name.split(".")[0] in PICKLING:
            yield f"{where(path, line)}: imports {name}"
    for node in ast.walk(tree(path)):
        if not isinstance(node, ast.Call):
            continue
        name = ast.unparse(node.func)
        given = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
        last = name.rsplit(".", 1)[-1]
        if name in {"eval", "exec", "compile", "__import__", "builtins.eval", "builtins.exec"}:
            yield f"{where(path, node.lineno)}: {name}"
        if name in {"os.system", "os.popen", "subprocess.getoutput", "subprocess.getstatusoutput"}:
            yield f"{where(path, node.lineno)}: {name}"
        if given.get("shell", "False") != "False":
            yield f"{where(path, node.lineno)}: {name}(shell=…)"
        if name in {"torch.load", "torch.hub.load", "torch.jit.load"} and given.get("weights_only") != "True":
            yield f"{where(path, node.lineno)}: {name} without weights_only=True"
        if given.get("allow_pickle", "False") != "False":
            yield f"{where(path, node.lineno)}: {name}(allow_pickle=…)"
        if name in {"yaml.load", "yaml.unsafe_load", "yaml.full_load", "yaml.load_all"}:
            yield f"{where(path, node.lineno)}: {name}, use yaml.safe_load"
        if last in {"extractall", "unpack_archive"}:
            yield f"{where(path, node.lineno)}: {name} can write outside its folder"


def test_no_forbidden_call_in_the_package():
    wrong = [fault for path in [*SOURCES, *(ROOT / "launch").glob("*.py")] for fault in forbidden(path)]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    "code",
    [
        "eval(text)",
        "import pickle",
        "from joblib import load",
        "os.system(command)",
        "subprocess.run(line, shell=True)",
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "np.load(path, allow_pickle=True)",
        "yaml.load(stream)",
    ],
)
def test_the_scan_finds_what_it_looks_for(tmp_path, code):
    source = tmp_path / "guilty.py"
    source.write_text(code)
    assert list(forbidden(source))


def test_every_file_has_the_two_spdx_lines():
    wrong = []
    for path in WRITTEN:
        text = path.read_text(encoding="utf-8")
        lines = [line for line in text.splitlines()[:3] if not line.startswith("#!")][:2]
        if not (
            len(lines) == 2
            and lines[0].startswith("# SPDX-FileCopyrightText: ")
            and lines[1] == "# SPDX-License-Identifier: Apache-2.0"
        ):
            wrong.append(str(path.relative_to(ROOT)))
    assert not wrong, "\n".join(wrong)


def test_the_core_never_prints():
    """Logging is the core's voice; print belongs to the command line."""
    wrong = [
        where(path, node.lineno)
        for path in SOURCES
        if room_of(path) not in {"cli", "ros"}
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "print"
    ]
    assert not wrong, "\n".join(wrong)


def test_the_environment_is_not_changed_at_import():
    """Importing must have no effect: os.environ is written by scripts and launch files, or inside functions."""
    wrong = []
    for path in SOURCES:
        for statement in tree(path).body:
            if isinstance(statement, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
                continue
            if re.search(r"os\.environ(\[[^]]*\] =|\.(update|setdefault)\()|os\.putenv", ast.unparse(statement)):
                wrong.append(where(path, statement.lineno))
    assert not wrong, "\n".join(wrong)


# More than 400 lines need a reason.
LONGER = {"deal_ros/datasets/store.py": "the order of writes that makes a sample durable is read in one place"}


def test_no_file_is_longer_than_it_needs():
    """50 to 250 lines are comfortable; beyond 400 a file has to be split, or say why not."""
    wrong = [
        f"{path.relative_to(ROOT)}: {count} lines"
        for path in SOURCES
        if (count := len(path.read_text(encoding="utf-8").splitlines())) > 400
        and (str(path.relative_to(ROOT)) not in LONGER or count > 450)
    ]
    assert not wrong, "\n".join(wrong)
