# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The house keeps its shape: who may import whom, and what may not be called anywhere. Read from the sources."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from source_scan import NETWORK_MODULES, scan

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
    {
        "sample",
        "labels",
        "config",
        "visualization",
        "filters",
        "metrics",
        "backbones",
        "pairing",
        "images",
        "image_headers",
        "files",
        "installed",
    },
    {"losses"},
    {"cams", "pseudo_labels", "students", "datasets", "scenes"},
    {"engine"},
    {"cli", "ros"},
)
ROS_MODULES = re.compile(
    r"(rclpy|rcl_interfaces|\w+_msgs|std_srvs|builtin_interfaces|cv_bridge|message_filters|launch(_ros)?|ament_\w+)$"
)


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
        if isinstance(node, ast.If) and ast.unparse(node.test) in {"TYPE_CHECKING", "typing.TYPE_CHECKING"}:
            pending.extend(node.orelse)
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
        if any(f"{name}.".startswith(f"{module}.") for module in NETWORK_MODULES)
    ]
    assert not wrong, "\n".join(wrong)


# Where the scan's findings are meant: file and call (or module), and why.
ALLOWED = {
    ("deal_ros/cli/porch.py", "os.execv"): "verbs that need ROS become another Python: its own program, no shell",
    ("deal_ros/cli/__init__.py", "importlib.import_module"): "a verb's module by the table VERBS, only when it is used",
    ("deal_ros/backbones/create.py", "huggingface_hub"): "weights that the user asked for by name",
    ("deal_ros/backbones/create.py", "socket"): "whether the hub can be reached, before its client waits for a minute",
    ("deal_ros/backbones/create.py", "urllib"): "takes the hub's address apart and asks whether there is a proxy",
}
SCANNED = [
    path for path in WRITTEN if path.relative_to(ROOT).parts[0] in {"deal_ros", "launch", "benchmarks", "examples"}
]


def test_no_forbidden_call_in_any_source():
    wrong, used = [], set()
    for path in [*SCANNED, ROOT / "setup.py"]:
        name = path.relative_to(ROOT)
        for finding in scan(path.read_text(encoding="utf-8"), ".".join(name.parent.parts)):
            key = (name.as_posix(), finding.name)
            used.add(key)
            if key not in ALLOWED:
                wrong.append(f"{name}:{finding}")
    assert not wrong, "\n".join(wrong)
    assert used == set(ALLOWED), "an exception that nothing needs any more"


GUILTY = (
    # builtins that run text
    ("eval(text)", "eval"),
    ("exec(text)", "exec"),
    ("compile(text, name, 'exec')", "compile"),
    ("run = eval", "eval"),
    ("list(map(eval, lines))", "eval"),
    ("import builtins; builtins.eval(text)", "builtins.eval"),
    ("import builtins as b; b.exec(text)", "builtins.exec"),
    ("from builtins import eval as harmless", "builtins.eval"),
    ("__builtins__['eval'](text)", "__builtins__"),
    ("from code import interact", "code"),
    ("import runpy as r; r.run_path(path)", "runpy"),
    # pickles
    ("import pickle", "pickle"),
    ("import pickle as p; p.loads(data)", "pickle"),
    ("from pickle import loads as parse", "pickle"),
    ("def f():\n    import _pickle as json", "_pickle"),
    ("from joblib import load", "joblib"),
    ("import torch; torch.serialization.pickle.load(file)", "torch.serialization.pickle"),
    ("np.load(path, allow_pickle=True)", "np.load(allow_pickle=…)"),
    ("import numpy; numpy.load(path, None, True)", "numpy.load"),
    ("from numpy import load as read; read(path, **options)", "numpy.load"),
    ("from functools import partial; partial(np.load, allow_pickle=True)", "partial(allow_pickle=…)"),
    ("torch.load(path)", "torch.load"),
    ("torch.load(path, weights_only=False)", "torch.load"),
    ("import torch as t; t.load(path)", "torch.load"),
    ("from torch import load as restore; restore(path)", "torch.load"),
    ("from torch.jit import load", "torch.jit.load"),
    ("restore = torch.load", "torch.load"),
    ("partial(torch.load, weights_only=True)(path)", "torch.load"),
    ("yaml.load(stream)", "yaml.load"),
    ("import yaml as y; y.unsafe_load(stream)", "yaml.unsafe_load"),
    ("from yaml import full_load_all as safe_load", "yaml.full_load_all"),
    ("from yaml import CLoader as SafeLoader", "yaml.CLoader"),
    # programs
    ("os.system(command)", "os.system"),
    ("import os as o; o.system(command)", "os.system"),
    ("from os import system as s; s(command)", "os.system"),
    ("import os\ns = os.system\ns(command)", "os.system"),
    ("import os\no = p = os\np.popen(command)", "os.popen"),
    ("import os, sys\n(o, s) = (os, sys)\no.system(command)", "os.system"),
    ("import os\nif o := os: o.system(command)", "os.system"),
    ("import shutil; shutil.os.system(command)", "shutil.os.system"),
    ("from deal_ros.cli.porch import os as o; o.system(command)", "deal_ros.cli.porch.os.system"),
    ("from .. import os; os.system(command)", "deal_ros.os.system"),
    ("import posix; posix.system(command)", "posix"),
    ("from os import *; system(command)", "os.*"),
    ("import threading, os; threading.Timer(1, os.execvp, line)", "os.execvp"),
    ("from subprocess import getoutput as g; g(line)", "subprocess.getoutput"),
    ("subprocess.run(line, shell=True)", "subprocess.run(shell=…)"),
    ("from subprocess import run as r; r(line, shell=True)", "r(shell=…)"),
    ("from subprocess import run as r; r(line, shell=config.shell)", "r(shell=…)"),
    ("from subprocess import Popen as P; P(line, **options)", "subprocess.Popen"),
    ("import subprocess as s; s.run(line, -1, None, None, None, None, None, True, True)", "subprocess.run"),
    ("import subprocess as s; s.call(['/bin/sh', '-c', line])", "subprocess.call"),
    ("import pty; pty.spawn(line)", "pty"),
    *((f"import os; os.{name}(program, line)", f"os.{name}") for name in
      ("execl", "execle", "execlp", "execlpe", "execv", "execve", "execvp", "execvpe", "popen", "posix_spawn",
       "posix_spawnp", "spawnl", "spawnle", "spawnlp", "spawnlpe", "spawnv", "spawnve", "spawnvp", "spawnvpe")),
    # connections
    ("import socket", "socket"),
    ("def f():\n    import socket as s", "socket"),
    ("def f():\n    from urllib import request as r", "urllib"),
    ("class A:\n    def f(self):\n        import http.client", "http"),
    ("if not TYPE_CHECKING:\n    import requests", "requests"),
    ("import asyncio; asyncio.create_subprocess_shell(line)", "asyncio"),
    ("import torch; torch.hub.load_state_dict_from_url(url)", "torch.hub"),
    ("from multiprocessing import connection", "multiprocessing.connection"),
    # imports by name
    ("import importlib; importlib.import_module(name)", "importlib.import_module"),
    ("from importlib import import_module as load; load(name)", "importlib.import_module"),
    ("from importlib import import_module as load; load(name=f'a.{b}')", "importlib.import_module"),
    ("import importlib as i; list(map(i.import_module, names))", "importlib.import_module"),
    ("import importlib; importlib.import_module('pickle')", "pickle"),
    ("def f():\n    from importlib import import_module\n    import_module('http.client')", "http"),
    ("import importlib; importlib.import_module('os').system(line)", "os.system"),
    ("__import__(name)", "__import__"),
    ("load = __import__; load(name)", "__import__"),
    ("__import__('socket')", "socket"),
    ("__import__('os.path').system(line)", "os.system"),
    ("o = __import__('os'); o.system(line)", "os.system"),
    ("import importlib.util as u; u.spec_from_file_location(name, path)", "importlib.util.spec_from_file_location"),
    ("from importlib.machinery import SourceFileLoader as S", "importlib.machinery.SourceFileLoader"),
    ("spec.loader.exec_module(module)", "exec_module"),
    # archives
    ("archive.extractall(folder)", "extractall"),
    ("from shutil import unpack_archive as u", "shutil.unpack_archive"),
)  # fmt: skip


@pytest.mark.parametrize(("code", "name"), GUILTY, ids=[code for code, _ in GUILTY])
def test_the_scan_finds_what_it_looks_for(code, name):
    assert name in {finding.name for finding in scan(code, "deal_ros.cli")}


@pytest.mark.parametrize(
    "code",
    [
        "network.eval()",
        "import re; re.compile(pattern)",
        "from re import compile",
        "import torch; torch.compile(network)",
        "class A:\n    compile: bool = False\n    def f(self):\n        return self.compile",
        "text = 'eval(text)'  # import pickle",
        "import os; os.path.join(folder, os.environ['HOME']); os._exit(1)",
        "from os import path as p; p.exists(folder)",
        "import json as pickle; pickle.loads(text)",
        "def f(socket, code, requests):\n    socket.close(); code.run(); requests.get(1)",
        "system = graph.system; system(3)",
        "import os\nsystem = robot.system\nsystem(os.name)",
        "import subprocess as s; s.run([sys.executable, '-m', module], check=True)",
        "import subprocess; a: subprocess.Popen[bytes]; subprocess.run(['git', 'sh'], shell=False)",
        "import numpy as np; np.load(path); np.load(path, allow_pickle=False)",
        "import torch; torch.load(path, map_location='cpu', weights_only=True)",
        "from safetensors.torch import load; load(data)",
        "import yaml; yaml.safe_load(text); yaml.SafeLoader(text); yaml.safe_dump(value)",
        "import importlib; importlib.import_module('timm')",
        "import importlib.util; importlib.util.find_spec('rclpy')",
        "import importlib.metadata as m; m.version('mujoco')",
        "import multiprocessing; multiprocessing.get_context('spawn').Pool(2)",
        "from . import store; from .store import SampleStore",
        "archive.read(name)",
    ],
)
def test_the_scan_lets_the_harmless_pass(code):
    assert scan(code, "deal_ros.cli") == []


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
