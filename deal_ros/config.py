# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The one loader: YAML or mapping → frozen dataclass, where an unknown key or a wrong type is an error."""

from __future__ import annotations

import dataclasses
import difflib
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import yaml

T = TypeVar("T")
MAX_YAML_BYTES = 1_000_000
MAX_YAML_NODES = 100_000
"""Most values of a YAML file, what its aliases stand for counted every time: a few lines can stand for billions."""


class ConfigError(ValueError):
    """A configuration that cannot be used; the message names the key, what was expected and what was found."""


def load_yaml(path: str | Path) -> dict[str, Any]:
    """Read a YAML file whose top level is a mapping. Tags that build objects are refused (safe loader).

    Raises:
        ConfigError: if the file is missing, too large, not YAML, or not a mapping.
    """
    path = Path(path)
    try:
        if path.stat().st_size > MAX_YAML_BYTES:
            raise ConfigError(f"must have at most {MAX_YAML_BYTES} bytes, got {path.stat().st_size}")
        values = _load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from error
    except _YAML_ERRORS as error:
        if isinstance(error, ConfigError):
            raise ConfigError(f"{path}: {error}") from None
        raise ConfigError(f"{path}: not valid YAML: {error}") from error
    if values is None:
        return {}
    if not isinstance(values, dict) or not all(isinstance(key, str) for key in values):
        raise ConfigError(f"{path}: the top level must be a mapping of names, got {type(values).__name__}")
    return values


# What the safe loader raises for "!!int ''", "!!bool x", "!!timestamp x" and their like is no YAMLError.
_YAML_ERRORS = (yaml.YAMLError, RecursionError, ValueError, LookupError, AttributeError, TypeError, ArithmeticError)


def _load(text: str) -> Any:
    loader = yaml.SafeLoader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        _check_expansion(node)
        return loader.construct_document(node)
    finally:
        loader.dispose()


def _check_expansion(root: yaml.Node) -> None:
    sizes: dict[int, int] = {}
    open_nodes: set[int] = set()

    def size(node: yaml.Node) -> int:
        key = id(node)
        if key in open_nodes:
            raise ConfigError("not valid YAML: an alias stands for something that it is part of")
        if key not in sizes:
            open_nodes.add(key)
            parts = [part for pair in node.value for part in pair] if isinstance(node, yaml.MappingNode) else node.value
            sizes[key] = 1 + (sum(map(size, parts)) if isinstance(node, yaml.CollectionNode) else 0)
            open_nodes.discard(key)
            if sizes[key] > MAX_YAML_NODES:
                raise ConfigError(f"must stand for at most {MAX_YAML_NODES} values, aliases stand for more")
        return sizes[key]

    size(root)


def from_mapping(cls: type[T], values: Mapping[str, Any], where: str = "config") -> T:
    """Build the dataclass ``cls`` from ``values``; nested dataclasses from nested mappings.

    Raises:
        ConfigError: on an unknown key (with the nearest known one), a missing one, a wrong type, or when the
            dataclass itself refuses a value.
    """
    if not isinstance(values, Mapping):
        raise ConfigError(f"{where}: must be a mapping, got {_shown(values)}")
    fields = {field.name: field for field in dataclasses.fields(cls) if field.init}  # type: ignore[arg-type]
    for key in values:
        if key not in fields:
            near = difflib.get_close_matches(str(key), fields, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise ConfigError(f"{where}: unknown key {_shown(key)}{hint} (known: {', '.join(fields)})")
    hints = typing.get_type_hints(cls)
    arguments = {key: _convert(hints[key], value, f"{where}.{key}") for key, value in values.items()}
    try:
        return cls(**arguments)
    except ConfigError:
        raise
    except (TypeError, ValueError, ArithmeticError) as error:
        raise ConfigError(f"{where}: {error}") from error


def to_mapping(config: Any) -> dict[str, Any]:
    """Undo :func:`from_mapping`: plain types only, ready for YAML or JSON."""
    return {field.name: _plain(getattr(config, field.name)) for field in dataclasses.fields(config) if field.init}


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return to_mapping(value)
    if isinstance(value, (tuple, list)):
        return [_plain(item) for item in value]
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    return str(value) if isinstance(value, Path) else value


def _shown(value: Any) -> str:
    """``repr`` for messages: short, and of what has none (integers of thousands of digits) the type."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):
        text = f"{type(value).__name__} that is too long to show"
    return text if len(text) <= 200 else f"{text[:200]}…"


def _convert(hint: Any, value: Any, where: str) -> Any:
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return value
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in args:
            return None
        options = [arg for arg in args if arg is not type(None)]
        errors = []
        for option in options:
            try:
                return _convert(option, value, where)
            except ConfigError as error:
                errors.append(str(error))
        raise ConfigError(errors[0] if len(errors) == 1 else " or ".join(errors))
    if origin is typing.Literal:
        if value not in args:
            raise ConfigError(f"{where}: must be one of {', '.join(map(str, args))}, got {_shown(value)}")
        return value
    if origin in (tuple, list):
        if not isinstance(value, (list, tuple)):
            raise ConfigError(f"{where}: must be a list, got {_shown(value)}")
        variadic = origin is list or (len(args) == 2 and args[1] is Ellipsis)
        if not variadic and len(value) != len(args):
            raise ConfigError(f"{where}: must have {len(args)} entries, got {len(value)}")
        kinds = [args[0]] * len(value) if variadic else list(args)
        return origin(_convert(kind, item, f"{where}[{i}]") for i, (kind, item) in enumerate(zip(kinds, value)))
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        return value if isinstance(value, hint) else from_mapping(hint, value, where)
    if origin in (dict, Mapping) or hint is dict:
        if not isinstance(value, Mapping):
            raise ConfigError(f"{where}: must be a mapping, got {_shown(value)}")
        return dict(value)
    if hint is float and isinstance(value, (int, float)) and not isinstance(value, bool):
        try:
            return float(value)
        except OverflowError as error:
            raise ConfigError(f"{where}: must be a number that fits a float, got {_shown(value)}") from error
    if hint is Path and isinstance(value, str):
        return Path(value)
    if isinstance(hint, type) and isinstance(value, hint) and not (hint is int and isinstance(value, bool)):
        return value
    raise ConfigError(f"{where}: must be {getattr(hint, '__name__', hint)}, got {_shown(value)}")
