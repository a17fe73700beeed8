# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The model in use, and the next: loaded and warmed beside it in a thread, swapped in between two frames."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from deal_ros.ros.worker import LatestWins


class Model(Protocol):
    """What the slot needs to know of a predictor."""

    @property
    def version(self) -> str:
        """Name of this very bundle."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names in id order."""

    def close(self) -> None:
        """Free its memory."""


class ModelPathError(ValueError):
    """A bundle path that must not be loaded."""


def confine(text: str, folder: Path) -> Path:
    """Return the path of a bundle announced over a topic, if it lies in ``folder``.

    Args:
        text: absolute, or relative to ``folder``.
        folder: the only place from which announced bundles are loaded; links are followed before comparing.

    Raises:
        ModelPathError: if the path is empty, too long, has control characters, or leads out of the folder.
    """
    if not text or len(text) > 4096 or not text.isprintable():
        raise ModelPathError(f"model path must be 1 to 4096 printable characters, got {text[:80]!r}")
    root = folder.expanduser().resolve()
    try:
        path = (root / text).resolve()
    except (OSError, RuntimeError) as error:  # a loop of links
        raise ModelPathError(f"model path {text!r} cannot be followed: {error}") from error
    if path == root or not path.is_relative_to(root):
        raise ModelPathError(f"model path {text!r} leads out of {root}; copy the bundle there or set models_folder")
    return path


class ModelSlot:
    """Keeps a model running while the next is made ready.

    Args:
        load: returns a ready, warm model for a path, or raises with the reason.
        on_ready: called in the loading thread when a model waits to be swapped in.
        on_refused: called in the loading thread with the path and the error; the old model runs on.
    """

    def __init__(
        self,
        load: Callable[[Path], Model],
        on_ready: Callable[[Path, Model], None],
        on_refused: Callable[[Path, Exception], None],
    ) -> None:
        self._load = load
        self._on_ready = on_ready
        self._on_refused = on_refused
        self._lock = threading.Lock()
        self._current: Model | None = None
        self._next: Model | None = None
        self._discarded: list[Model] = []
        self._closed = False
        self._loader: LatestWins[Path] = LatestWins(self._prepare, "model_loader")
        self.path: Path | None = None

    @property
    def running(self) -> Model | None:
        """Return the model in use."""
        return self._current

    def request(self, path: Path) -> None:
        """Make the bundle at ``path`` ready in the background; the newest request wins."""
        self._loader.offer(path)

    def load_now(self, path: Path) -> Model:
        """Load in the calling thread and use it at once; raises what loading raises."""
        model = self._load(path)
        with self._lock:
            self._replace_next(model)
            self.path = path
        self.take()
        return model

    def take(self) -> Model | None:
        """Take the model for the next frame. Only the thread that works on frames may call this, between two."""
        with self._lock:
            if self._next is not None:
                if self._current is not None:
                    self._discarded.append(self._current)
                self._current, self._next = self._next, None
                if self._discarded:
                    self._free_discarded()
            return self._current

    def close(self) -> None:
        """Stop loading and free all models; nobody may work on a frame any more."""
        with self._lock:
            self._closed = True  # what is still being loaded is freed as soon as it is there
        self._loader.stop(timeout_s=0.5)
        with self._lock:
            models = [*self._discarded, self._next, self._current]
            self._discarded, self._next, self._current = [], None, None
        for model in models:
            if model is not None:
                model.close()

    def _prepare(self, path: Path) -> None:
        try:
            model = self._load(path)
        except Exception as error:
            self._on_refused(path, error)
            return
        with self._lock:
            closed = self._closed
            if not closed:
                self._replace_next(model)
                self.path = path
        if closed:
            model.close()
        else:
            self._on_ready(path, model)

    def _replace_next(self, model: Model) -> None:
        if self._next is not None:
            self._discarded.append(self._next)
        self._next = model

    def _free_discarded(self) -> None:
        # Freeing can take milliseconds: not in the thread that has a frame waiting.
        models, self._discarded = self._discarded, []
        threading.Thread(target=lambda: [model.close() for model in models], name="model_closer", daemon=True).start()
