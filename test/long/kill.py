# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The plug pulled again and again: ``python test/long/kill.py --rounds 200 --json kill.json``.

A round kills (SIGKILL) a process that gathers, imports, trains or writes bundles, at a moment drawn from the seed, and
looks at what is left: no committed sample lost, no torn file read as whole, training that goes on to the very same
weights, and a bundle, read while it is replaced, that is whole or not there. Children are forks: libraries are loaded
once, so that the moments fall into the work.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import runpy
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
sys.path[:0] = [str(HERE.parent / "support"), str(ROOT)]

from raw_result import conclude, origin  # noqa: E402


def killed(work: Callable[[int], None], seconds: float) -> tuple[bool, bytes]:
    """Fork, work, and kill after ``seconds``; whether it was still at work, and what it had said over its pipe."""
    ours, theirs = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(ours)
        code = 1
        with contextlib.suppress(BaseException):
            work(theirs)
            code = 0
        os._exit(code)
    os.close(theirs)
    ended = time.monotonic() + seconds
    status = 0
    while time.monotonic() < ended and not status:
        pid, code = os.waitpid(child, os.WNOHANG)
        status = pid and (code or -1)
        time.sleep(0.001)
    if not status:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    with os.fdopen(ours, "rb") as pipe:
        said = pipe.read()
    if status > 0:
        raise AssertionError(f"the child failed by itself, status {status}")
    return not status, said


class Collector:
    """The store as the collector writes it: what it said is committed must be there, whole, and nothing torn."""

    def __init__(self, folder: Path, rng: random.Random) -> None:
        self.path, self.rng, self.count = folder / "store", rng, 0
        self.look = runpy.run_path(str(HERE.parent / "datasets" / "test_store_faults.py"))["assert_whole"]

    def round(self) -> bool:
        """One life of the writer."""
        from store_frames import CLASSES, frame

        from deal_ros.datasets.store import SampleStore

        def work(pipe: int) -> None:
            store = SampleStore.open_or_create(self.path, CLASSES, image_format="png")
            while True:
                store.append(frame(len(store)))
                os.write(pipe, b".")

        if self.count > 400:  # looking at every sample each time would take longer and longer
            shutil.rmtree(self.path)
            self.count = 0
        was_killed, said = killed(work, self.rng.uniform(0.01, 0.2))
        if self.path.joinpath("store.json").exists():
            found = len(self.look(self.path))
            assert self.count + len(said) <= found <= self.count + len(said) + 1, (self.count, len(said), found)
            self.count = found
        else:
            assert not said
            shutil.rmtree(self.path, ignore_errors=True)
        return was_killed


class Importer:
    """An import, started again until it is done, gives the store of an import that nobody disturbed."""

    def __init__(self, folder: Path, rng: random.Random) -> None:
        from bag_writing import recording, write_bag

        self.folder, self.rng, self.finished = folder, rng, 0
        self.bag = write_bag(folder / "bag", recording(150))
        began = time.monotonic()
        self._import(folder / "straight")
        self.seconds = time.monotonic() - began
        self.expected = (folder / "straight" / "samples.jsonl").read_bytes()

    def _import(self, out: Path) -> None:
        from deal_ros.cli import main

        assert main(["import", str(self.bag), "--out", str(out), "--min-interval-s", "0.2", "--progress", "none"]) == 0

    def round(self) -> bool:
        """One start."""
        out = self.folder / "store"

        def work(_: int) -> None:
            with open(os.devnull, "w") as nothing, contextlib.redirect_stdout(nothing):  # noqa: PTH123
                self._import(out)

        was_killed, _ = killed(work, self.rng.uniform(0.1, 0.9) * self.seconds)
        if not was_killed:
            assert (out / "samples.jsonl").read_bytes() == self.expected
            shutil.rmtree(out)
            self.finished += 1
        return was_killed

    def close(self) -> None:
        """The last, undisturbed start ends as if nothing had been."""
        self._import(self.folder / "store")
        assert (self.folder / "store" / "samples.jsonl").read_bytes() == self.expected


class Trainer:
    """Training (CAM network with DEAL), started again until it is done, ends with the same bytes of weights."""

    def __init__(self, folder: Path, rng: random.Random) -> None:
        from engine_scenes import cam_config, scenes

        self.folder, self.rng, self.finished = folder, rng, 0
        self.data, self.config = scenes(8), cam_config(steps=24)
        self._train(folder / "first")  # loads libraries: not part of the time that is measured
        began = time.monotonic()
        self._train(folder / "straight")
        self.seconds = time.monotonic() - began
        self.expected = self._weights(folder / "straight")

    def _train(self, out: Path) -> None:
        from deal_ros.engine.train_cam import train_cam

        train_cam(self.data, out, self.config)

    @staticmethod
    def _weights(out: Path) -> dict[str, list]:
        from deal_ros.engine.checkpoint import load_checkpoint

        best, last = load_checkpoint(out / "best.safetensors"), load_checkpoint(out / "last.safetensors")
        return {
            f"{number} {group} {name}": value.flatten().tolist()
            for number, checkpoint in enumerate((best, last))
            for group, tensors in checkpoint.tensors.items()
            for name, value in tensors.items()
        }

    def round(self) -> bool:
        """One start."""
        from deal_ros.engine.checkpoint import load_checkpoint

        out = self.folder / "run"
        was_killed, _ = killed(lambda _: self._train(out), self.rng.uniform(0.05, 0.9) * self.seconds)
        for path in out.glob("[!.]*.safetensors"):
            load_checkpoint(path)  # whole, whenever it was killed
        if not was_killed:
            assert self._weights(out) == self.expected
            shutil.rmtree(out)
            self.finished += 1
        return was_killed

    def close(self) -> None:
        """The last, undisturbed start ends as if nothing had been."""
        self._train(self.folder / "run")
        assert self._weights(self.folder / "run") == self.expected


class BundleWriter:
    """Two bundles replace each other while the segmenter's reader opens the folder: one of them or none."""

    def __init__(self, folder: Path, rng: random.Random) -> None:
        import torch

        from deal_ros.students import BundleSpec, create_student, read_spec, write_bundle

        self.target, self.rng, self.read, self.absent = folder / "models" / "bundle", rng, 0, 0
        self.students = []
        for seed in (0, 1):
            torch.manual_seed(seed)
            student = create_student("light", 2, weights="none", encoder="test_efficientnet", channels=8).eval()
            self.students.append((student, BundleSpec(("milk", "ketchup"), (64, 96), metrics={"seed": float(seed)})))
        self.versions = {read_spec(write_bundle(folder / f"v{i}", *s)).version for i, s in enumerate(self.students)}

    def round(self) -> bool:
        """One writer's life, and readings meanwhile and after."""
        from deal_ros.students import write_bundle

        def work(_: int) -> None:
            number = 0
            while True:
                write_bundle(self.target, *self.students[number % 2], overwrite=True)
                number += 1

        reader = os.fork()
        if reader == 0:
            with contextlib.suppress(BaseException):
                ended = time.monotonic() + 0.1
                while time.monotonic() < ended:
                    self._look()
                os._exit(0)
            os._exit(1)
        was_killed, _ = killed(work, self.rng.uniform(0.005, 0.1))
        assert os.waitpid(reader, 0)[1] == 0, "a half bundle was read"
        self.read, self.absent = self.read + self._look(), self.absent + (not self.target.exists())
        return was_killed

    def _look(self) -> bool:
        from deal_ros.students import BundleError, read_bundle

        try:
            _, spec = read_bundle(self.target)
        except BundleError as error:
            # Between the two renames there is no folder, or the reader has one file of each: refused by checksum.
            if "not found" in str(error) or "sha256 must be" in str(error):
                return False
            raise
        assert spec.version in self.versions
        return True

    def close(self) -> None:
        """The next writer finds and mends everything."""
        from deal_ros.students import write_bundle

        write_bundle(self.target, *self.students[0], overwrite=True)
        assert self._look()
        assert [path.name for path in self.target.parent.iterdir()] == ["bundle"]
        assert self.read, "no reading found a whole bundle"


SCENES = {"collector": Collector, "importer": Importer, "trainer": Trainer, "bundle": BundleWriter}


def kill_often(name: str, kills: int, seed: int) -> dict:
    """Rounds of one scene until ``kills`` processes were killed at work."""
    folder = Path(tempfile.mkdtemp(prefix="deal_ros_kill_"))
    began, done, rounds, fault = time.monotonic(), 0, 0, ""
    try:
        scene = SCENES[name](folder, random.Random(f"{seed} {name}"))
        while done < kills and rounds < 10 * kills + 10:
            rounds += 1
            done += scene.round()
        if hasattr(scene, "close"):
            scene.close()
    except (AssertionError, OSError, ValueError) as error:
        fault = f"round {rounds}: {type(error).__name__}: {error!s:.500}"
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    counts = {key: value for key in ("finished", "read", "absent") if (value := getattr(scene, key, None)) is not None}
    seconds = round(time.monotonic() - began, 1)
    return {"scene": name, "kills": done, "rounds": rounds, **counts, "seconds": seconds, "fault": fault}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=200, help="kills in all, shared among the scenes")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", choices=list(SCENES))
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    import torch

    torch.set_num_threads(1)
    chosen = [args.only] if args.only else list(SCENES)
    results = []
    for name in chosen:
        results.append(kill_often(name, -(-args.rounds // len(chosen)), args.seed))
        print(results[-1], file=sys.stderr)
    whole = {
        "kills": sum(result["kills"] for result in results),
        "faults": [f"{result['scene']}: {result['fault']}" for result in results if result["fault"]],
        "seed": args.seed,
        **origin(),
        "scenes": results,
    }
    return conclude(whole, args.json)


if __name__ == "__main__":
    sys.exit(main())
