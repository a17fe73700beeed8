# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The command line: every verb is listed, none costs an import that is not asked for, exit codes say what happened."""

import importlib
import importlib.util
import json
import signal
import subprocess
import sys
from types import ModuleType

import pytest

from deal_ros import cli
from deal_ros.cli import DONE, FAILED, INTERRUPTED, SUMMARIES, VERBS, WRONG_USE, UsageError, main
from deal_ros.cli.options import apply_changes, section_settings
from deal_ros.cli.reporting import ProgressBars, StopOnInterrupt, print_json, print_result, progress_reporter
from deal_ros.config import ConfigError
from deal_ros.engine.progress import Cancelled, Progress

PRESENT = [verb for verb, module in VERBS.items() if importlib.util.find_spec(module)]


@pytest.fixture
def verb(monkeypatch):
    """A verb ``info`` that does what the test says."""

    def install(run):
        module = ModuleType("verb", "deal info THING\n\nSay what it is.")
        module.add_arguments = lambda parser: parser.add_argument("thing", nargs="?")
        module.run = run
        monkeypatch.setattr(cli, "_load", lambda name: module)

    return install


def test_help_lists_every_verb_in_the_order_of_the_work(capsys):
    assert main(["--help"]) == DONE
    text = capsys.readouterr().out
    places = [text.index(f"    {name}") for name in VERBS]
    assert places == sorted(places)
    assert list(SUMMARIES) == list(VERBS)
    assert all(SUMMARIES[name][:30] in text for name in VERBS)


def test_help_loads_no_heavy_library():
    code = "import sys; from deal_ros.cli import main; main(['--help'])"
    code += "; print(sorted({'torch', 'cv2'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip().endswith("[]")


@pytest.mark.parametrize("name", PRESENT)
def test_every_verb_has_help_with_a_command_to_copy(name, capsys):
    assert main([name, "--help"]) == DONE
    text = capsys.readouterr().out
    assert f"deal {name}" in text.partition("\n\n")[2]
    module = importlib.import_module(VERBS[name])
    first = module.__doc__.strip().splitlines()[0].lstrip("`")
    assert first.startswith(f"deal {name}")


def test_no_verb_and_unknown_verbs_are_wrong_use(capsys):
    assert main([]) == WRONG_USE
    assert "train-cam" in capsys.readouterr().err
    assert main(["trian-cam"]) == WRONG_USE
    assert "did you mean 'train-cam'?" in capsys.readouterr().err
    assert main(["train-cam", "--nonsense"]) == WRONG_USE


def test_a_verb_that_is_missing_leaves_the_others(monkeypatch, capsys):
    monkeypatch.setitem(VERBS, "info", "deal_ros.cli.not_there")
    assert main(["--help"]) == DONE
    assert main(["info"]) == FAILED
    assert "cannot be loaded" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (ValueError("size must be 3, got 4"), FAILED, "deal info: size must be 3, got 4"),
        (FileNotFoundError(2, "No such file", "x"), FAILED, "deal info: [Errno 2]"),
        (Cancelled("stopped after step 3"), FAILED, "deal info: stopped after step 3"),
        (UsageError("give --data"), WRONG_USE, "deal info: give --data"),
        (ConfigError("unknown key"), WRONG_USE, "deal info: unknown key"),
        (KeyboardInterrupt(), INTERRUPTED, "deal info: interrupted"),
    ],
)
def test_known_errors_become_one_line_and_an_exit_code(verb, capsys, error, code, said):
    def run(args):
        raise error

    verb(run)
    assert main(["info"]) == code
    err = capsys.readouterr().err
    assert said in err
    assert "Traceback" not in err


def test_debug_shows_the_traceback_and_defects_always_do(verb):
    def run(args):
        raise ValueError("x") if args.debug else RuntimeError("a defect")

    verb(run)
    for arguments in (["--debug", "info"], ["info", "--debug"]):
        with pytest.raises(ValueError, match="x"):
            main(arguments)
    with pytest.raises(RuntimeError, match="a defect"):
        main(["info"])


def test_a_verbs_code_is_the_exit_code(verb):
    verb(lambda args: 1)
    assert main(["info"]) == 1
    verb(lambda args: None)
    assert main(["info"]) == 0


def test_the_version_is_printed(capsys):
    assert main(["--version"]) == DONE
    assert capsys.readouterr().out.startswith("deal_ros ")


def test_settings_are_changed_by_path():
    values = {"a": {"b": 1}}
    apply_changes(values, ["a.b=2", "a.c.d=[1, 2]", "e=null", "f=text"])
    assert values == {"a": {"b": 2, "c": {"d": [1, 2]}}, "e": None, "f": "text"}
    for wrong in ("a", "=1", "a=[", "a.b.c=1"):
        with pytest.raises(UsageError, match="--set"):
            apply_changes({"a": {"b": 1}}, [wrong])


def test_a_section_of_a_recipe_gives_the_settings(tmp_path):
    path = tmp_path / "r.yaml"
    path.write_text("train_cam: {optimization: {steps: 5}}\nname: x\n")
    assert section_settings(path, "train_cam", ["optimization.lr=1"]) == {"optimization": {"steps": 5, "lr": 1}}
    with pytest.raises(UsageError, match="must be a mapping"):
        section_settings(path, "name", [])


def test_results_are_json_without_nan(capsys):
    print_json({"a": float("nan"), "b": [float("inf"), 1]})
    print_result({"x": 1}, "json")
    print_result({"x": 1}, "bar")
    lines = capsys.readouterr().out
    assert json.loads(lines.splitlines()[0]) == {"a": None, "b": [None, 1]}
    assert json.loads(lines.splitlines()[1]) == {"result": {"x": 1}}


def test_progress_for_programs_and_for_people(capsys):
    progress_reporter("json")(Progress("train-cam", 1, 2, {"loss": 0.5}))
    captured = capsys.readouterr()
    assert json.loads(captured.out) == {"stage": "train-cam", "done": 1, "total": 2, "metrics": {"loss": 0.5}}
    bars = ProgressBars()
    for report in (Progress("a", 1, 2), Progress("a", 2, 2, {"loss": 0.5}), Progress("b", 1, 1)):
        bars(report)
    captured = capsys.readouterr()
    assert "a: 100%" in captured.err
    assert "b: 100%" in captured.err
    assert captured.out == ""


def test_the_first_interrupt_asks_and_the_second_interrupts(capsys):
    before = signal.getsignal(signal.SIGINT)
    with StopOnInterrupt() as should_stop:
        assert not should_stop()
        signal.raise_signal(signal.SIGINT)
        assert should_stop()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)
    assert signal.getsignal(signal.SIGINT) is before
    assert "checkpoint" in capsys.readouterr().err
