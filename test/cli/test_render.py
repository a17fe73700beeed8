# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
import json

import pytest

pytest.importorskip("mujoco")

from deal_ros.cli import main

SMALL = ["--classes", "milk", "--size", "32x48", "--onboarding-scenes", "1,0,0", "--onboarding-frames", "2"]
SMALL += ["--tabletop-scenes", "0,0,0", "--no-shadows", "--jobs", "1"]


@pytest.mark.gl
def test_render_prints_its_result_and_compares(tmp_path, capsys):
    out = tmp_path / "a"
    assert main(["render", "--out", str(out), *SMALL, "--progress", "json"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert lines[0]["stage"] == "render"
    assert (lines[0]["done"], lines[0]["total"]) == (1, 2)
    result = lines[-1]["result"]
    assert result["frames_rendered"] == 4
    assert result["stores"] == {"onboarding/train": str(out / "onboarding" / "train")}
    other = ["render", "--out", str(tmp_path / "b"), *SMALL, "--progress", "json", "--compare", str(out)]
    assert main(other) == 0
    assert main([*other[:2], str(tmp_path / "c"), *other[3:], "--seed", "1"]) == 1
    assert "another scene" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--size", "240"], "--size must be HEIGHTxWIDTH"),
        (["--onboarding-scenes", "1,2"], "--onboarding-scenes must be three counts"),
        (["--jobs", "-1"], "--jobs must be 0 or more"),
        (["--scenarios", "kitchen"], "scenarios"),
        (["--noise", "-2"], "noise_strength must be >= 0"),
    ],
)
def test_wrong_options_end_with_code_2_and_say_why(tmp_path, capsys, arguments, message):
    assert main(["render", "--out", str(tmp_path / "x"), *arguments]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "x").exists()
