# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The benchmark runner: rows, verdicts, merging, what cannot run, and the page between its markers."""

from __future__ import annotations

import json
import os
import time

import pytest

ROW = {"question", "figure", "value", "unit", "target", "holds"}


def script(folder, body, name="script.py"):
    """A benchmark of this test, which finds common.py where the others do."""
    path = folder / name
    path.write_text(f"QUESTION = 'asked'\n{body}\n")
    return path


def test_every_script_is_found_and_says_what_it_asks(benchmarks, repository):
    run = benchmarks("run")
    names = {path.stem for path in run.scripts()}
    helpers = {"common", "run", "node_session"}
    assert names == {path.stem for path in (repository / "benchmarks").glob("*.py")} - helpers
    questions = [run.question(path) for path in run.scripts()]
    assert len(set(questions)) == len(questions)


@pytest.mark.parametrize(
    ("value", "bounds", "target", "holds"),
    [
        (2.0, {"at_most": 3}, "≤ 3", True),
        (2.0, {"at_least": 3}, "≥ 3", False),
        (2.0, {"at_least": 2, "at_most": 2}, "≤ 2 and ≥ 2", True),
        (None, {"at_most": 3}, "≤ 3", None),
        (2.0, {}, "", None),
    ],
)
def test_a_verdict_follows_from_value_and_bound(benchmarks, value, bounds, target, holds):
    entry = benchmarks("common").row("asked", "figure", value, "ms", **bounds)
    assert (entry.target, entry.holds) == (target, holds)


def test_rows_of_a_script_come_back_as_it_wrote_them(benchmarks, tmp_path):
    rows = [dict.fromkeys(ROW) | {"question": "asked", "figure": "f", "value": 1.5, "unit": "ms", "target": ""}]
    body = f"import sys, pathlib\npathlib.Path(sys.argv[2]).write_text({json.dumps(rows)!r})"
    measured, ran = benchmarks("run").measure(script(tmp_path, body), False, 30)
    assert ran
    assert [vars(entry) for entry in measured] == rows


def test_what_cannot_run_becomes_a_row_with_the_reason(benchmarks, tmp_path):
    (entry,), ran = benchmarks("run").measure(script(tmp_path, "import surely_not_installed"), True, 30)
    assert not ran
    assert (entry.question, entry.value, entry.holds) == ("asked", None, None)
    assert entry.figure == "did not run: ModuleNotFoundError: No module named 'surely_not_installed'"


def test_a_script_that_hangs_is_stopped_and_its_children_too(benchmarks, tmp_path):
    child = tmp_path / "child"
    body = (
        "import pathlib, subprocess, sys, time\n"
        f"child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
        f"pathlib.Path({str(child)!r}).write_text(str(child.pid))\ntime.sleep(60)"
    )
    (entry,), ran = benchmarks("run").measure(script(tmp_path, body), True, 3.0)
    assert not ran
    assert entry.figure == "did not run: stopped after 3 s"
    deadline = time.monotonic() + 10
    while _alive(int(child.read_text())):
        assert time.monotonic() < deadline, "the child lives on"
        time.sleep(0.05)


def _alive(pid):
    try:
        os.kill(pid, 0)
        with open(f"/proc/{pid}/stat") as file:  # noqa: PTH123
            return file.read().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def test_rows_without_value_are_taken_from_another_machine_and_say_so(benchmarks):
    common, run = benchmarks("common"), benchmarks("run")
    here = [
        common.row("q", "cpu", 1.0, "ms"),
        common.row("q", "cuda", None, "ms", at_most=3),
        common.row("q", "x", None, ""),
    ]
    there = [
        common.row("q", "cpu", 9.0, "ms"),
        common.row("q", "cuda", 2.0, "ms", at_most=3),
        common.row("p", "x", 1.0, ""),
    ]
    merged = run.merge(here, there)
    assert [(entry.figure, entry.value, entry.holds) for entry in merged] == [
        ("cpu", 1.0, None),
        ("cuda (other machine)", 2.0, True),
        ("x", None, None),
    ]


def test_thorough_results_are_preferred_to_quick_ones(benchmarks, tmp_path):
    stored = benchmarks("run").stored
    assert stored("pairing", tmp_path) is None
    (tmp_path / "quick").mkdir()
    (tmp_path / "quick" / "pairing.json").write_text('{"rows": [], "raw": 1}')
    assert stored("pairing", tmp_path)["raw"] == 1
    (tmp_path / "pairing.json").write_text('{"rows": [], "raw": 2}')
    assert stored("pairing", tmp_path)["raw"] == 2


def test_the_page_changes_between_its_markers_only(benchmarks):
    run = benchmarks("run")
    page = f"# Title\n\nabove\n{run.BEGIN}\nold\n{run.END}\nbelow\n"
    once = run.update_page(page, "| new |")
    assert once == f"# Title\n\nabove\n{run.BEGIN}\n\n| new |\n\n{run.END}\nbelow\n"
    assert run.update_page(once, "| new |") == once
    for broken in ("nothing", f"{run.END}{run.BEGIN}", page + page):
        with pytest.raises(ValueError, match="must hold"):
            run.update_page(broken, "| new |")


def test_the_block_holds_rows_wide_tables_and_where_they_come_from(benchmarks, tmp_path):
    common, run = benchmarks("common"), benchmarks("run")
    machine = {**common.environment(), "quick": True, "others_percent": 3.0}
    rows = [vars(common.row("q", "cuda", None, "ms", at_most=3))]
    raw = {"environment": machine, "rows": rows, "raw": {"table": [["a", "b"], [1, "–"]]}}
    failed = {"rows": [vars(run.failure("other", "No | module"))]}
    block = run.page_block([("first", raw), ("second", failed)], tmp_path)
    assert "| q | cuda | not measured | ≤ 3 |  |" in block
    assert "| other | did not run: No / module | not measured |  |  |" in block
    assert "### q\n\n| a | b |\n|---|---|\n| 1 | – |" in block
    assert f"| first | {machine['commit']}" in block
    assert "| quick |" in block
    assert "| second |" not in block
    gpu = raw | {"environment": machine | {"device": "a GPU"}, "rows": [rows[0] | {"value": 2.0, "holds": True}]}
    (tmp_path / "first_gpu.json").write_text(json.dumps(gpu))
    assert "| q | cuda (other machine) | 2 ms | ≤ 3 | yes |" in run.page_block([("first", raw)], tmp_path)


def test_the_page_of_this_checkout_has_its_markers(benchmarks):
    run = benchmarks("run")
    text = run.PAGE.read_text(encoding="utf-8")
    assert run.update_page(text, "x").count("x") >= 1


def test_frames_are_counted_by_stamp(benchmarks):
    figures = benchmarks("node_session")._figures
    sent = [float(number) for number in range(100)]
    masks = [(stamp, stamp + (0.010 if stamp < 50 else 0.020)) for stamp in sent if stamp % 4]
    found = figures(sent, [(-1.0, 5.0), *masks, masks[-1]], 4.0)
    assert (found["sent"], found["masks"], found["masks_hz"]) == (100, 75, 18.75)
    assert found["dropped_percent"] == pytest.approx(25)
    assert found["first_third_ms"] == pytest.approx(10)
    assert found["last_third_ms"] == pytest.approx(20)
    assert found["p95_ms"] == pytest.approx(20)
    assert "p50_ms" not in figures(sent, masks[:3], 4.0)
    assert figures([], [], 4.0)["dropped_percent"] is None
