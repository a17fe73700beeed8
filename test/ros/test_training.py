# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The training process behind the trainer node: real child processes that report, crash, hang, fork and go on."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from deal_ros.datasets.miniature import MINIATURES
from deal_ros.datasets.store import SampleStore
from deal_ros.ros.child import Child, training_command
from deal_ros.ros.training import (
    CANCELLED,
    CANCELLING,
    DONE,
    FAILED,
    PAUSED,
    RUNNING,
    Training,
    TrainingError,
    last_bundle,
)

COUNTS, LABELLED = {"milk": 9, "ketchup": 8}, 17
GOOD = """
import json, sys, time
for done in range(1, 4):
    print(json.dumps({"stage": "train-cam", "done": done, "total": 3, "metrics": {"loss": 1 / done}}), flush=True)
    time.sleep(0.05)
print(json.dumps({"result": {"bundle": sys.argv[1] + "/bundle", "metrics": {"miou": 0.5}}}), flush=True)
"""
COUNTING = """
import os, signal, sys, time, pathlib
state = pathlib.Path(sys.argv[1], "steps")
done = int(state.read_text()) if state.exists() else 0
stop = []
signal.signal(signal.SIGINT, lambda *_: stop.append(1))
while not stop:
    done += 1
    temporary = state.with_suffix(".tmp")
    temporary.write_text(str(done)); temporary.replace(state)
    print('{"stage": "train-cam", "done": %d, "total": 1000, "metrics": {}}' % done, flush=True)
    time.sleep(0.02)
sys.exit(130)
"""


def script(text):
    """A ``command`` that runs ``text`` with the run folder as its argument."""
    return lambda recipe, store, out, options: [sys.executable, "-c", text, str(out), *options]


@pytest.fixture
def training():
    training = Training()
    yield training
    training.close()


def begin(training, tmp_path, text, text_of_recipe="name: test\n", **options):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(text_of_recipe)
    options = {"min_samples": 8, "command": script(text), **options}
    return training.start(recipe, tmp_path / "store", tmp_path / "models", COUNTS, LABELLED, **options)


def wait_for(condition, timeout_s=20.0):
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def wait_end(training, **options):
    final = []
    wait_for(lambda: final.append(training.poll(**options)) or final[-1] is not None)
    return final[-1]


def test_reports_become_status_and_the_result_its_end(training, tmp_path):
    answer = begin(training, tmp_path, GOOD)
    assert answer.startswith("started run-")
    final = wait_end(training)
    assert final.state == DONE
    assert final.bundle == f"{final.run}/bundle"
    assert (final.stage, final.done, final.total) == ("train-cam", 3, 3)
    assert final.metrics == {"loss": pytest.approx(1 / 3)}
    assert final.result == {"miou": 0.5}
    assert json.loads(final.to_json())["state"] == "done"
    assert training.poll() is None
    assert begin(training, tmp_path, GOOD).startswith("started"), "a finished run is not continued"


def test_start_is_refused_with_what_is_missing(training, tmp_path):
    recipe = tmp_path / "recipe.yaml"
    with pytest.raises(TrainingError, match=r"recipe .* does not exist"):
        training.start(recipe, tmp_path, tmp_path / "models", COUNTS, LABELLED)
    recipe.write_text("")
    with pytest.raises(TrainingError, match="missing ketchup: 2 more, milk: 1 more"):
        training.start(recipe, tmp_path, tmp_path / "models", COUNTS, LABELLED, min_samples=10)
    for counts in ({}, {"milk": 0}):
        with pytest.raises(TrainingError, match="no sample of any class"):
            training.start(recipe, tmp_path, tmp_path / "models", counts, 0)
    with pytest.raises(TrainingError, match=r"milk: in view in all 12 samples.*labelled 'nothing'"):
        training.start(recipe, tmp_path, tmp_path / "models", {"milk": 12, "ketchup": 9}, 12)
    with pytest.raises(TrainingError, match="no training is running"):
        training.cancel()
    assert not (tmp_path / "models").exists()
    begin(training, tmp_path, "import time; time.sleep(60)")
    with pytest.raises(TrainingError, match="call ~/cancel first"):
        begin(training, tmp_path, GOOD)


@pytest.mark.parametrize("option", ["--out=/tmp/x", "--out", "--o", "--data", "-h", "--recipe", "--outx"])
def test_options_that_lead_elsewhere_are_refused(training, tmp_path, option):
    with pytest.raises(TrainingError, match="options must be among --losses"):
        begin(training, tmp_path, GOOD, options=[option, "/tmp"])


def test_a_cancelled_run_goes_on_where_it_stopped(training, tmp_path):
    begin(training, tmp_path, COUNTING)
    wait_for(lambda: training.status().done >= 5)
    assert "resumes" in training.cancel()
    assert training.status().state == CANCELLING
    first = wait_end(training)
    assert first.state == CANCELLED
    answer = begin(training, tmp_path, COUNTING)
    assert answer.startswith(f"resumed {first.run.rpartition('/')[2]}; follow it on training/status; it keeps")
    wait_for(lambda: training.status().done > first.done)
    assert training.status().run == first.run
    wait_for(lambda: training.status().eta_s is not None)
    assert 0 <= training.status().eta_s < 3600
    training.close()
    assert begin(training, tmp_path, COUNTING, options=["--losses=deal"]).startswith("started"), (
        "other options, other run"
    )


def test_an_edited_recipe_is_another_run(training, tmp_path):
    """The run that was begun with the recipe as it was would refuse it, again and again."""
    begin(training, tmp_path, COUNTING)
    wait_for(lambda: training.status().done >= 1)
    training.close()
    assert begin(training, tmp_path, COUNTING, text_of_recipe="name: edited\n").startswith("started")


def test_a_run_is_not_resumed_when_a_sample_that_it_began_with_has_been_undone(training, tmp_path):
    """It would be refused, again and again, as one of other data."""
    store = MINIATURES["store"](tmp_path / "store")
    begin(training, tmp_path, COUNTING)
    wait_for(lambda: training.status().done >= 1)
    training.close()
    with SampleStore.open(store, writable=True) as samples:
        ends = [samples.sample_id(0), samples.sample_id(len(samples) - 1)]
        Path(training.status().run, "data.json").write_text(json.dumps({"samples": len(samples), "ends": ends}))
        again = samples[len(samples) - 1]
        samples.append(again)
        assert begin(training, tmp_path, COUNTING).startswith("resumed"), "it has grown"
        training.close()
        samples.undo(1)
        assert begin(training, tmp_path, COUNTING).startswith("resumed"), "what was undone came later"
        training.close()
        samples.undo(1)
        samples.append(again)  # of the same number
        assert begin(training, tmp_path, COUNTING).startswith("started")


def test_the_end_of_a_training_is_told_though_its_note_cannot_be_written(training, tmp_path, monkeypatch):
    begin(training, tmp_path, GOOD)

    def full(self, path, note):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Training, "_write_note", full)
    final = wait_end(training)
    assert final.state == DONE
    assert final.bundle == f"{final.run}/bundle"
    assert "No space left on device" in final.message
    assert "trainer.json cannot be written" in final.message


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux only")
def test_reports_are_heard_though_the_log_is_full(tmp_path):
    (tmp_path / "log").symlink_to("/dev/full")
    said = "import time; print('words', flush=True); time.sleep(0.2); print('{\"stage\": \"s\"}', flush=True)"
    reports = []
    child = Child([sys.executable, "-c", said], tmp_path / "log", reports.append)
    wait_for(lambda: child.poll() is not None)
    assert child.poll() == 0
    assert reports == [{"stage": "s"}]


def test_a_resumed_run_judges_its_pace_anew(training, tmp_path, monkeypatch):
    begin(training, tmp_path, COUNTING)
    wait_for(lambda: training.status().done >= 3)
    training.close()
    now = time.monotonic
    monkeypatch.setattr(time, "monotonic", lambda: now() + 3600)  # resumed an hour later
    begin(training, tmp_path, COUNTING)
    wait_for(lambda: (training.status().eta_s or 0) > 0)
    assert training.status().eta_s < 600


def test_a_process_that_cannot_be_started_leaves_no_run_behind(training, tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise OSError("no more processes")

    monkeypatch.setattr("deal_ros.ros.training.Child", refuse)
    with pytest.raises(OSError, match="no more processes"):
        begin(training, tmp_path, COUNTING)
    assert training.status().state == FAILED
    assert "no more processes" in training.status().message
    assert not training.running


def test_a_killed_process_is_reported_and_can_be_resumed(training, tmp_path):
    begin(training, tmp_path, COUNTING)
    wait_for(lambda: training.status().done >= 3)
    os.kill(training._child.pid, signal.SIGKILL)
    final = wait_end(training)
    assert final.state == FAILED
    assert "killed by signal 9" in final.message
    done = final.done
    assert begin(training, tmp_path, COUNTING).startswith("resumed")
    wait_for(lambda: training.status().done > done)


def test_a_crash_brings_its_last_words(training, tmp_path):
    begin(training, tmp_path, "import sys; print('not a report'); print('[1]'); sys.exit('disk is full')")
    final = wait_end(training)
    assert final.state == FAILED
    assert "ended with code 1" in final.message
    assert "disk is full" in final.message
    assert "set the parameter resume to false" in final.message, "it never got anywhere"
    assert "not a report" in (tmp_path / "models" / final.run / "training.log").read_text()


def test_the_last_bundle_is_remembered_through_later_runs_until_it_is_gone_or_leads_elsewhere(training, tmp_path):
    models = tmp_path / "models"
    assert last_bundle(models) is None
    begin(training, tmp_path, "import os, sys; os.mkdir(sys.argv[1] + '/bundle')\n" + GOOD)
    made = Path(wait_end(training).bundle)
    assert last_bundle(models) == made
    begin(training, tmp_path, COUNTING)
    wait_for(lambda: training.status().done > 0)
    assert last_bundle(models) == made, "a run that goes on"
    training.cancel()
    assert wait_end(training).state == CANCELLED
    assert last_bundle(models) == made, "a run that came to nothing"
    (tmp_path / "elsewhere").mkdir()
    note = models / "trainer.json"
    for damaged in (note.read_text().replace(str(made), str(tmp_path / "elsewhere")), "[]", "{"):
        note.write_text(damaged)
        assert last_bundle(models) is None
    note.write_text(json.dumps({"bundle": str(made)}))
    made.rename(tmp_path / "removed")
    assert last_bundle(models) is None


def test_an_end_without_a_bundle_is_a_failure(training, tmp_path):
    begin(training, tmp_path, "pass")
    final = wait_end(training)
    assert (final.state, final.bundle) == (FAILED, "")
    assert "without a bundle" in final.message


@pytest.mark.parametrize(
    "line",
    ["{", "{}", '{"stage": 3}', '{"stage": "a", "done": "x", "total": 1}', '{"result": []}', "[" * 5000, "\x00\xff{"],
)
def test_rubbish_on_stdout_is_no_report(training, tmp_path, line):
    (tmp_path / "said").write_bytes(line.encode("latin-1") + b'\n{"stage": "b", "done": 1, "total": 2}\n')
    begin(training, tmp_path, f"print(open({str(tmp_path / 'said')!r}, encoding='latin-1').read())")
    final = wait_end(training)
    assert (final.stage, final.done, final.total) == ("b", 1, 2)


def test_a_silent_process_is_ended(training, tmp_path):
    begin(training, tmp_path, "import time; time.sleep(60)")
    final = wait_end(training, stall_timeout_s=0.3)
    assert final.state == FAILED
    assert "no report for 0 s" in final.message


def test_pausing_halts_and_loses_nothing(training, tmp_path):
    begin(training, tmp_path, COUNTING)
    wait_for(lambda: training.status().done >= 3)
    training.pause(True, "inference is slow")
    time.sleep(0.2)
    halted = training.status()
    assert (halted.state, halted.message) == (PAUSED, "inference is slow")
    time.sleep(0.3)
    assert training.status().done == halted.done
    assert training.poll(stall_timeout_s=0.1) is None, "a paused process is not stalled"
    training.pause(False)
    assert training.status().state == RUNNING
    wait_for(lambda: training.status().done > halted.done)
    training.pause(True)
    training.cancel()
    assert wait_end(training).state == CANCELLED


def test_nothing_is_left_behind(training, tmp_path):
    text = """
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(300)"])
print('{"stage": "fork", "done": %d, "total": 1}' % child.pid, flush=True)
time.sleep(300)
"""
    begin(training, tmp_path, text)
    wait_for(lambda: training.status().done)
    grandchild = training.status().done
    began = time.monotonic()
    training.close(grace_s=0.5)
    assert time.monotonic() - began < 1.9
    wait_for(lambda: not alive(grandchild), 3)


def alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"


def test_the_process_is_niced_limited_and_dies_with_its_node(tmp_path):
    text = (
        'import os; print(\'{"stage": "s", "done": %d, "total": %s}\' % (os.nice(0), os.environ[\'OMP_NUM_THREADS\']))'
    )
    reports = []
    child = Child([sys.executable, "-c", text], tmp_path / "log", reports.append, niceness=7, threads=3)
    wait_for(lambda: child.poll() is not None)
    assert reports == [{"stage": "s", "done": os.nice(0) + 7, "total": 3}]

    parent = f"""
import sys, time, pathlib
from deal_ros.ros.child import Child
child = Child([sys.executable, "-c", "import time; time.sleep(300)"], pathlib.Path({str(tmp_path / "l")!r}), print)
print(child.pid, flush=True)
time.sleep(300)
"""
    with subprocess.Popen([sys.executable, "-c", parent], stdout=subprocess.PIPE, text=True) as node:
        pid = int(node.stdout.readline())
        assert alive(pid)
        node.kill()
    wait_for(lambda: not alive(pid), 5)


def test_the_command_is_what_a_person_would_type(tmp_path):
    command = training_command(tmp_path / "r.yaml", tmp_path / "s", tmp_path / "o", ["--losses", "deal"])
    assert command[1:5] == ["-m", "deal_ros.cli", "run", str(tmp_path / "r.yaml")]
    assert command[-4:] == ["--progress", "json", "--losses", "deal"]
