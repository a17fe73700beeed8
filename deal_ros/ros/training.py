# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""One training at a time: start, cancel, crash, resume, and what there is to say of it. Needs no ROS."""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from deal_ros.datasets.store import SampleStore
from deal_ros.files import write_json
from deal_ros.ros.child import Child, missing_samples, training_command
from deal_ros.ros.models import confine

IDLE, RUNNING, PAUSED, CANCELLING = "idle", "running", "paused", "cancelling"
DONE, CANCELLED, FAILED = "done", "cancelled", "failed"
_NOTE = "trainer.json"
_CANCEL_GRACE_S = 20.0


ALLOWED_OPTIONS = ("--losses", "--seeds", "--smoke", "--set", "--device")
"""Arguments of ``deal run`` that may come over a parameter; none of them is a path to write to."""


class TrainingError(ValueError):
    """A start or cancel that cannot be; the message says why and what to do."""


@dataclass
class TrainingStatus:
    """What ``training/status`` says.

    Args:
        state: idle, running, paused (yields to inference), cancelling, done, cancelled or failed.
        stage: the running or last stage, see :class:`~deal_ros.engine.progress.Progress`.
        done, total: units of the stage.
        metrics: the stage's newest figures: losses, mAP, …
        elapsed_s: since start.
        eta_s: until the stage ends, from its own speed; ``None`` while unknown.
        run: folder of the run.
        bundle: the model bundle once it is there.
        result: the run's final metrics.
        message: what happened last, and what to do where something went wrong.
    """

    state: str = IDLE
    stage: str = ""
    done: int = 0
    total: int = 0
    metrics: dict[str, float | None] = field(default_factory=dict)
    elapsed_s: float = 0.0
    eta_s: float | None = None
    run: str = ""
    bundle: str = ""
    result: dict[str, Any] = field(default_factory=dict)
    message: str = "no training yet"

    def to_json(self) -> str:
        """One JSON object."""
        return json.dumps(asdict(self), default=str)


def check_options(options: Sequence[str]) -> None:
    """Refuse arguments other than :data:`ALLOWED_OPTIONS`.

    Raises:
        TrainingError: naming the argument and what is allowed.

    Example:
        >>> check_options(["--losses", "deal", "--set=train_cam.optimization.steps=50"])
    """
    for option in options:
        if option.startswith("-") and option.partition("=")[0] not in ALLOWED_OPTIONS:
            raise TrainingError(f"options must be among {', '.join(ALLOWED_OPTIONS)}, got {option[:80]!r}")


def check_samples(counts: Mapping[str, int], labelled: int, least: int) -> list[str]:
    """Refuse a store that nothing can be learnt from; return classes that no sample shows, which are let be.

    Args:
        counts: samples per class.
        labelled: samples that have labels, those of no class included.
        least: samples that each class must have, if it has any: names stay in a store for ever, mistyped ones too.

    Raises:
        TrainingError: naming what is missing.

    Example:
        >>> check_samples({"milk": 9, "ketchup": 8, "mlik": 0}, 17, least=8)
        ['mlik']
    """
    shown = {name: count for name, count in counts.items() if count}
    if not shown:
        raise TrainingError("the store has no sample of any class; collect labelled samples first")
    if missing := missing_samples(shown, least):
        lacking = ", ".join(f"{name}: {count} more" for name, count in sorted(missing.items()))
        raise TrainingError(
            f"too few samples, at least {least} per class are needed; missing {lacking}."
            " A class that shall not be learnt: `deal store relabel --rename NAME=`"
        )
    if everywhere := sorted(name for name, count in shown.items() if count == labelled):
        raise TrainingError(
            f"{', '.join(everywhere)}: in view in all {labelled} samples; what is never absent cannot be learnt:"
            " show other classes alone, or the scene without any, labelled 'nothing'"
        )
    return sorted(counts.keys() - shown.keys())


def last_bundle(models_folder: Path) -> Path | None:
    """Return the bundle that was trained last into ``models_folder``, if it is still there."""
    try:
        name = json.loads((models_folder / _NOTE).read_text(encoding="utf-8"))["bundle"]
        path = confine(name, models_folder)
    except (OSError, ValueError, KeyError, TypeError):
        return None  # nothing trained yet, or a damaged note
    return path if path.is_dir() else None


def _has_what_it_began_with(run: Path, store: Path) -> bool:
    """Whether the store still has the newest sample that a run began with; what is undone is always the newest."""
    note = run / "data.json"
    if not note.is_file():
        return True  # it did not get that far
    newest = json.loads(note.read_text(encoding="utf-8"))["ends"][-1]
    with SampleStore.open(store) as samples:
        names = (samples.sample_id(index) for index in range(len(samples) - 1, -1, -1))
        return next((name == newest for name in names if name <= newest), False)  # ids ascend


class Training:
    """Runs the training process and keeps its status.

    Args:
        on_change: called whenever the status changed, from any thread; must not block.
    """

    def __init__(self, on_change: Callable[[], None] = lambda: None) -> None:
        self._on_change = on_change
        self._lock = threading.RLock()
        self._child: Child | None = None
        self._status = TrainingStatus()
        self._started_at = 0.0
        self._stage_began: tuple[str, float, int] = ("", 0.0, 0)
        self._cancelled_at: float | None = None
        self._note: Path | None = None

    @property
    def running(self) -> bool:
        """Whether a training process exists."""
        return self._child is not None

    def status(self) -> TrainingStatus:
        """Return a copy of the newest status."""
        with self._lock:
            if self._child is not None:
                self._status.elapsed_s = round(time.monotonic() - self._started_at, 1)
            return TrainingStatus(**asdict(self._status))

    def start(
        self,
        recipe: Path,
        store: Path,
        models_folder: Path,
        counts: Mapping[str, int],
        labelled: int,
        *,
        min_samples: int = 1,
        options: Sequence[str] = (),
        resume: bool = True,
        niceness: int = 15,
        threads: int = 1,
        command: Callable[[Path, Path, Path, Sequence[str]], list[str]] = training_command,
    ) -> str:
        """Start a run, or go on with the last one if it did not end and was started alike.

        Args:
            recipe: recipe file.
            store: sample store.
            models_folder: the run's folder is made in it.
            counts: samples per class.
            labelled: samples that have labels.
            min_samples: least samples of each class that has any.
            options: further arguments.
            resume: whether an unfinished run may be continued.
            niceness: see :class:`Child`.
            threads: see :class:`Child`.
            command: makes the command line; tests put their own here.

        Returns:
            What to answer: which run started.

        Raises:
            TrainingError: if one runs already, the recipe is missing, or samples are missing (naming how many).
            OSError: if the folder cannot be written or the process cannot be started.
        """
        with self._lock:
            if self._child is not None:
                raise TrainingError(f"a training is {self._status.state} already; call ~/cancel first")
            check_options(options)
            if not recipe.is_file():
                raise TrainingError(
                    f"recipe {str(recipe)!r} does not exist; set the recipe parameter to a file or robot"
                )
            unseen = check_samples(counts, labelled, min_samples)
            models_folder.mkdir(parents=True, exist_ok=True)
            digest = hashlib.sha256(recipe.read_bytes()).hexdigest()  # an edited recipe is another run
            request = {"recipe": str(recipe), "sha256": digest, "store": str(store), "options": list(options)}
            run, resumed = self._choose_run(models_folder, request, resume)
            run.mkdir(parents=True, exist_ok=True)
            note = {**request, "run": str(run), "state": RUNNING, "bundle": str(last_bundle(models_folder) or "")}
            self._write_note(models_folder / _NOTE, note)
            self._status = TrainingStatus(state=RUNNING, run=str(run), message="training")
            self._started_at, self._cancelled_at, self._stage_began = time.monotonic(), None, ("", 0.0, 0)
            arguments = command(recipe, store, run, options)
            try:
                self._child = Child(arguments, run / "training.log", self._on_report, niceness, threads)
            except OSError as error:
                self._finish(FAILED, f"the training process cannot be started: {error}")
                raise
        self._on_change()
        answer = f"{'resumed' if resumed else 'started'} {run.name}; follow it on training/status"
        if resumed:
            answer += "; it keeps the samples that it began with, parameter resume:=false takes all"
        return answer + (f"; no sample shows {', '.join(unseen)}" if unseen else "")

    def cancel(self) -> str:
        """Ask the run to save a checkpoint and stop.

        Raises:
            TrainingError: if none runs.
        """
        with self._lock:
            if self._child is None:
                raise TrainingError("no training is running")
            self._child.resume()
            self._child.interrupt()
            self._cancelled_at = self._cancelled_at or time.monotonic()
            self._status.state, self._status.message = CANCELLING, "saving a checkpoint"
        self._on_change()
        return "cancelling; ~/start resumes where it stopped"

    def pause(self, paused: bool, why: str = "") -> None:
        """Halt the process, or let it go on, without losing anything."""
        with self._lock:
            if self._child is None or self._status.state not in (RUNNING, PAUSED):
                return
            if paused:
                self._child.pause()
            else:
                self._child.resume()
            self._status.state = PAUSED if paused else RUNNING
            self._status.message = why if paused else "training"
        self._on_change()

    def poll(self, stall_timeout_s: float = 600.0) -> TrainingStatus | None:
        """Look after the process; call about once a second. Returns the final status when it has just ended."""
        with self._lock:
            child = self._child
            if child is None:
                return None
            code = child.poll()
            if code is None:
                if self._cancelled_at is not None and time.monotonic() - self._cancelled_at > _CANCEL_GRACE_S:
                    child.kill()
                elif self._status.state == RUNNING and child.silent_s > stall_timeout_s:
                    self._status.message = f"no report for {stall_timeout_s:.0f} s"
                    child.kill()
                return None
            self._end(child, code)
            final = self.status()
        self._on_change()
        return final

    def close(self, grace_s: float = 1.0) -> None:
        """End the process if one runs; its last checkpoint stays and ~/start resumes it."""
        with self._lock:
            child, self._child = self._child, None
        if child is not None:
            child.resume()
            child.stop(grace_s)
            self._finish(CANCELLED, "the node ended; ~/start resumes where it stopped")

    def _end(self, child: Child, code: int) -> None:
        self._child = None
        stalled = self._status.message.startswith("no report")
        if self._cancelled_at is not None:
            self._finish(CANCELLED, "cancelled; ~/start resumes where it stopped")
        elif code == 0 and self._status.bundle:
            self._finish(DONE, f"bundle {self._status.bundle}")
        elif code == 0:
            self._finish(FAILED, f"the training ended without a bundle; see {child.log}")
        else:
            how = f"killed by signal {-code}" if code < 0 else f"ended with code {code}"
            reason = self._status.message + "; " if stalled else ""
            anew = "" if self._status.stage else " it, or set the parameter resume to false and it starts anew"
            text = f"the training process {how}; {reason}~/start resumes{anew}; {child.log}: {child.last_words()}"
            self._finish(FAILED, text)

    def _finish(self, state: str, message: str) -> None:
        self._status.state, self._status.message, self._status.eta_s = state, message, None
        self._status.elapsed_s = round(time.monotonic() - self._started_at, 1)
        if self._note is None:
            return
        done = {"bundle": self._status.bundle} if state == DONE else {}
        try:
            note = json.loads(self._note.read_text(encoding="utf-8")) if self._note.is_file() else {}
            self._write_note(self._note, {**note, "state": state, **done})
        except (OSError, ValueError, TypeError) as error:  # the training's end is worth more than its note
            self._status.message += f"; {self._note} cannot be written, nobody will know of it after a restart: {error}"

    def _on_report(self, report: dict[str, Any]) -> None:
        with self._lock:
            status = self._status
            result = report.get("result")
            if isinstance(result, dict):
                status.bundle = str(result.get("bundle", ""))
                metrics = result.get("metrics", {})
                status.result = metrics if isinstance(metrics, dict) else {}
            elif isinstance(report.get("stage"), str):
                self._progress(report)
        self._on_change()

    def _progress(self, report: Mapping[str, Any]) -> None:
        status, now = self._status, time.monotonic()
        done, total, metrics = report.get("done"), report.get("total"), report.get("metrics")
        if not isinstance(done, int) or not isinstance(total, int):
            return
        stage, began, first = self._stage_began
        if report["stage"] != stage or done < first:
            began, first = now, done
            self._stage_began = (report["stage"], began, first)
        status.stage, status.done, status.total = report["stage"], done, total
        if isinstance(metrics, dict) and metrics:
            status.metrics = metrics
        if done > first:
            status.eta_s = round((now - began) / (done - first) * max(0, total - done), 1)

    def _choose_run(self, folder: Path, request: dict[str, Any], resume: bool) -> tuple[Path, bool]:
        note = folder / _NOTE
        if resume and note.is_file():
            try:
                last = json.loads(note.read_text(encoding="utf-8"))
                unfinished = last["state"] != DONE and all(last[key] == value for key, value in request.items())
                run = folder / Path(last["run"]).name
                if unfinished and run.is_dir() and _has_what_it_began_with(run, Path(request["store"])):
                    return run, True
            except (ValueError, KeyError, TypeError, IndexError):
                pass  # a damaged note costs a resumption, not the training
        name = time.strftime("run-%Y%m%d-%H%M%S")
        run = folder / name
        number = 2
        while run.exists():
            run, number = folder / f"{name}-{number}", number + 1
        return run, False

    def _write_note(self, path: Path, note: Mapping[str, Any]) -> None:
        self._note = path
        write_json(path, note)  # after a power cut the robot starts with this model
