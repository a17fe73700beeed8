# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Search a source for calls through which a message, a bag or a bundle could run code or open a connection.

Names are followed through imports and plain assignments (``import os as o``, ``from os import system as s``,
``s = os.system``, ``__import__("os").system``), and a mention is enough: a function that is handed on is called
elsewhere. The scan keeps honest people from mistakes; it does not stop those who hide. Out of its reach are
``getattr(os, name)``, ``vars(os)``, ``globals()``, ``sys.modules``, and modules kept in containers, attributes and
arguments.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from typing import NamedTuple

NETWORK_MODULES = {
    *("aiohttp", "asyncio", "ftplib", "http", "httpx", "huggingface_hub", "imaplib", "multiprocessing.connection"),
    *("multiprocessing.managers", "paramiko", "poplib", "requests", "smtplib", "socket", "socketserver", "ssl"),
    *("telnetlib", "torch.hub", "torch.utils.model_zoo", "urllib", "urllib3", "webbrowser", "websocket", "websockets"),
    "xmlrpc",
}
PICKLING = {
    "_pickle",
    "cPickle",
    "cloudpickle",
    "dill",
    "joblib",
    "jsonpickle",
    "marshal",
    "pickle",
    "pickle5",
    "shelve",
}
RUNS_CODE = {"code", "codeop", "imp", "nt", "posix", "pty", "runpy", "zipimport"}
"""Modules that run code or programs and are good for nothing else here; ``posix`` is ``os`` by another name."""
MODULES = {
    **dict.fromkeys(NETWORK_MODULES, "can open a connection"),
    **dict.fromkeys(PICKLING, "unpickles"),
    **dict.fromkeys(RUNS_CODE, "runs code"),
}
BUILTINS = {"eval", "exec", "compile"}
IMPORTERS = {"__import__", "builtins.__import__", "importlib.__import__", "importlib.import_module"}
STARTERS = {f"subprocess.{name}" for name in ("Popen", "run", "call", "check_call", "check_output")}
SHELLS = {"sh", "bash", "dash", "zsh", "ksh", "csh", "fish", "cmd", "cmd.exe", "powershell"}
MENTIONS = (
    (r"builtins\.(eval|exec|compile)", "runs code"),
    (r"os\.(system|popen\w*|exec\w+|spawn\w+|posix_spawnp?|startfile)", "becomes or starts a program"),
    (r"subprocess\.(getoutput|getstatusoutput)", "uses a shell"),
    (r"yaml\.((unsafe|full)_)?load(_all)?|yaml\.C?(Unsafe|Full)?Loader", "use yaml.safe_load"),
    (r"importlib\.util\.(spec_from_file_location|spec_from_loader|module_from_spec)", "loads code from a file"),
    (r"importlib\.machinery\.\w*Loader", "loads code from a file"),
)
"""Dotted names that may not even be mentioned, whatever comes before (``shutil.os.system``), and why."""
_MENTIONS = [(re.compile(rf"(?:.+\.)?(?:{pattern})"), why) for pattern, why in MENTIONS]
_CHECKPOINTS = re.compile(r"(?!safetensors\.)(?:.+\.)?torch\.(?:(?:jit|serialization)\.)?load")
_DEEPEST = 8
"""Parts of a dotted name that are followed."""


class Finding(NamedTuple):
    """``name`` (a call or a module, by its real name) on ``line``, and what is wrong with it."""

    line: int
    name: str
    why: str

    def __str__(self) -> str:
        return f"{self.line}: {self.name}: {self.why}"


def scan(source: str, package: str = "") -> list[Finding]:
    """All findings in a Python source.

    Args:
        source: its text.
        package: dotted name of the package it is in, for relative imports.

    Raises:
        SyntaxError: if it is no Python.
    """
    tree = ast.parse(source)
    names = _Names(tree, package)
    found = {finding for node in ast.walk(tree) for finding in _of_node(node, names)}
    return sorted(found)


def _of_node(node: ast.AST, names: _Names) -> Iterator[Finding]:
    if isinstance(node, (ast.Import, ast.ImportFrom)):
        yield from _of_import(node, names)
    elif isinstance(node, (ast.Name, ast.Attribute)) and isinstance(node.ctx, ast.Load):
        for name in names.of(node):
            yield from _of_mention(node, name)
        if isinstance(node, ast.Attribute) and node.attr in {"extractall", "unpack_archive"}:
            yield Finding(node.lineno, node.attr, "can write outside its folder")
        if isinstance(node, ast.Attribute) and node.attr == "exec_module":
            yield Finding(node.lineno, node.attr, "loads code from a file")
        if not names.is_called(node):
            for name in names.of(node):
                yield from _of_handing_on(node, name)
    elif isinstance(node, ast.Call):
        yield from _of_keywords(node)
        for name in names.of(node.func):
            yield from _of_call(node, name)


def _of_import(node: ast.Import | ast.ImportFrom, names: _Names) -> Iterator[Finding]:
    for alias in node.names:
        if isinstance(node, ast.Import):
            yield from _of_module(node.lineno, alias.name)
            continue
        base = names.base(node)
        if alias.name == "*":
            yield from _of_module(node.lineno, base)
            yield Finding(node.lineno, f"{base}.*", "hides where names come from")
            continue
        name = f"{base}.{alias.name}"
        yield from _of_module(node.lineno, name)
        yield from _of_mention(node, name)
        yield from _of_handing_on(node, name)  # others could import it from here
        if alias.name == "unpack_archive":
            yield Finding(node.lineno, name, "can write outside its folder")


def _of_module(line: int, name: str) -> Iterator[Finding]:
    """Importing ``name`` brings in a module of the list."""
    parts = name.split(".")
    for end in range(1, len(parts) + 1):
        module = ".".join(parts[:end])
        if module in MODULES:
            yield Finding(line, module, MODULES[module])


def _of_mention(node: ast.expr | ast.ImportFrom, name: str) -> Iterator[Finding]:
    if name in BUILTINS or name == "__builtins__":
        yield Finding(node.lineno, name, "runs code")
    for pattern, why in _MENTIONS:
        if pattern.fullmatch(name):
            yield Finding(node.lineno, name, why)
    for module, why in MODULES.items():
        if "." in module and f".{module}." in f".{name}.":  # there without an import of its own: torch.hub
            yield Finding(node.lineno, module, why)
    for part in name.split(".")[1:]:  # another module's import: torch.serialization.pickle
        if part in PICKLING:
            yield Finding(node.lineno, name, MODULES[part])


def _of_handing_on(node: ast.expr | ast.ImportFrom, name: str) -> Iterator[Finding]:
    """What is judged by its arguments may not be handed on to where they cannot be seen."""
    if name in IMPORTERS or _CHECKPOINTS.fullmatch(name):
        yield Finding(node.lineno, name, "is handed on, its arguments cannot be seen")


def _of_keywords(node: ast.Call) -> Iterator[Finding]:
    """Keywords that no function may be called with, whatever it is."""
    for keyword in node.keywords:
        if keyword.arg in ("shell", "allow_pickle") and not _is(keyword.value, False):
            yield Finding(node.lineno, f"{ast.unparse(node.func)}({keyword.arg}=…)", f"must not have {keyword.arg}")


def _of_call(node: ast.Call, name: str) -> Iterator[Finding]:
    unseen = any(keyword.arg is None for keyword in node.keywords) or any(
        isinstance(argument, ast.Starred) for argument in node.args
    )
    if name in IMPORTERS:
        module = _constant_module(node)
        if module is None:
            yield Finding(node.lineno, name, "imports what cannot be seen")
        else:
            yield from _of_module(node.lineno, module)
    if name in STARTERS:
        if unseen or len(node.args) > 8:  # the ninth is shell
            yield Finding(node.lineno, name, "shell cannot be seen")
        if _is_shell(node.args[0] if node.args else None):
            yield Finding(node.lineno, name, "starts a shell")
    if name == "numpy.load" and (unseen or len(node.args) > 2):  # the third is allow_pickle
        yield Finding(node.lineno, name, "allow_pickle cannot be seen")
    if _CHECKPOINTS.fullmatch(name) and not any(k.arg == "weights_only" and _is(k.value, True) for k in node.keywords):
        yield Finding(node.lineno, name, "without weights_only=True")


def _constant_module(node: ast.Call) -> str | None:
    named = [keyword.value for keyword in node.keywords if keyword.arg == "name"]
    first = [*node.args, *named][:1]
    if not first or not isinstance(first[0], ast.Constant) or not isinstance(first[0].value, str):
        return None
    return first[0].value


def _is_shell(command: ast.expr | None) -> bool:
    first = command.elts[0] if isinstance(command, (ast.List, ast.Tuple)) and command.elts else command
    return (
        isinstance(first, ast.Constant)
        and isinstance(first.value, str)
        and bool(first.value.split())
        and first.value.split()[0].rsplit("/", 1)[-1] in SHELLS
    )


def _is(node: ast.expr, value: bool) -> bool:
    return isinstance(node, ast.Constant) and node.value is value


class _Names:
    """What the names of one source stand for: every dotted name that any import or assignment gives them, anywhere."""

    def __init__(self, tree: ast.Module, package: str) -> None:
        self._package = package
        self._bound: dict[str, set[str]] = {}
        self._called = {id(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                for alias in node.names:
                    self._bind(alias.asname or alias.name.split(".")[0], alias.name if alias.asname else None)
            elif isinstance(node, ast.ImportFrom):
                for alias in node.names:
                    self._bind(alias.asname or alias.name, f"{self.base(node)}.{alias.name}")
        pairs = [pair for node in ast.walk(tree) for pair in _assigned(node)]
        for _ in range(_DEEPEST):  # names for names for names
            before = sum(map(len, self._bound.values()))
            for target, value in pairs:
                for name in self._of_value(value):
                    self._bind(target, name)
            if sum(map(len, self._bound.values())) == before:
                break

    def base(self, node: ast.ImportFrom) -> str:
        """The absolute name after ``from``."""
        package = self._package.split(".")
        above = package[: len(package) + 1 - node.level] if node.level else []
        return ".".join([*above, *filter(None, [node.module])])

    def is_called(self, node: ast.expr) -> bool:
        """Whether ``node`` is the function of a call."""
        return id(node) in self._called

    def of(self, node: ast.expr) -> set[str]:
        """Dotted names that an expression may stand for; what was never bound stands for itself."""
        if isinstance(node, ast.Name):
            return self._bound.get(node.id, {node.id})
        if isinstance(node, ast.NamedExpr):
            return self.of(node.value)
        if isinstance(node, ast.Attribute):
            return {f"{name}.{node.attr}" for name in self.of(node.value)}
        if isinstance(node, ast.Call) and self.of(node.func) & IMPORTERS:
            module = _constant_module(node)
            if module is None:
                return set()
            return {module, module.split(".")[0]}  # __import__ gives the first part
        return set()

    def _of_value(self, node: ast.expr) -> set[str]:
        """As :meth:`of`, for imported things and builtins alone: other variables are nobody's alias."""
        root: ast.expr = node
        while isinstance(root, ast.Attribute):
            root = root.value
        known = not isinstance(root, ast.Name) or root.id in self._bound or root.id in BUILTINS | {"__import__"}
        return {name for name in self.of(node) if name.count(".") < _DEEPEST} if known else set()

    def _bind(self, name: str, meaning: str | None) -> None:
        self._bound.setdefault(name, set()).add(meaning or name)


def _assigned(node: ast.AST) -> Iterator[tuple[str, ast.expr]]:
    """Plain names and what is assigned to them, also pairwise in tuples."""
    if isinstance(node, ast.Assign):
        pending = [(target, node.value) for target in node.targets]
    elif isinstance(node, (ast.AnnAssign, ast.NamedExpr)) and node.value is not None:
        pending = [(node.target, node.value)]
    else:
        return
    while pending:
        target, value = pending.pop()
        if isinstance(target, ast.Name):
            yield target.id, value
        elif isinstance(target, (ast.Tuple, ast.List)) and isinstance(value, (ast.Tuple, ast.List)):
            pending += zip(target.elts, value.elts)
