# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""A checkpoint is whole or absent, holds no pickle, and gives an optimiser back exactly."""

import os
import random

import numpy as np
import pytest
import torch
from torch import nn

from deal_ros.engine.checkpoint import (
    CheckpointError,
    load_checkpoint,
    load_weights,
    optimizer_tensors,
    restore_optimizer,
    save_checkpoint,
    seed_step,
)


def trained(optimizer_class, **options):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    groups = [{"params": network[0].parameters(), "lr": 1e-2}, {"params": network[2].parameters(), "lr": 3e-2}]
    optimizer = optimizer_class(groups, **options)
    for group in optimizer.param_groups:
        group["initial_lr"] = group["lr"]
    step(network, optimizer, 3)
    return network, optimizer


def step(network, optimizer, count):
    for _ in range(count):
        optimizer.zero_grad()
        network(torch.ones(3, 4)).square().sum().backward()
        optimizer.step()


@pytest.mark.parametrize(
    ("optimizer_class", "options"),
    [(torch.optim.AdamW, {"lr": 1e-2}), (torch.optim.SGD, {"lr": 1e-2, "momentum": 0.9})],
)
def test_an_optimiser_goes_on_bit_by_bit(tmp_path, optimizer_class, options):
    network, optimizer = trained(optimizer_class, **options)
    tensors, scalars = optimizer_tensors(optimizer)
    save_checkpoint(tmp_path / "c", {"network": network.state_dict(), "optimizer": tensors}, {"optimizer": scalars})
    saved = load_checkpoint(tmp_path / "c")
    step(network, optimizer, 2)

    other, fresh = trained(optimizer_class, **options)
    load_weights(other, saved.tensors["network"], "c")
    restore_optimizer(fresh, saved.tensors["optimizer"], saved.state["optimizer"])
    step(other, fresh, 2)
    assert all(torch.equal(a, b) for a, b in zip(network.state_dict().values(), other.state_dict().values()))


def test_tied_and_strided_weights_are_stored(tmp_path):
    base = torch.arange(6.0)
    save_checkpoint(tmp_path / "c", {"a": {"x": base, "y": base.view(2, 3).T}}, {})
    assert load_checkpoint(tmp_path / "c").tensors["a"]["y"].tolist() == base.view(2, 3).T.tolist()


def test_a_failing_disk_leaves_the_checkpoint_before(tmp_path, monkeypatch):
    path = tmp_path / "c"
    save_checkpoint(path, {"a": {"x": torch.ones(2)}}, {"step": 1})

    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        save_checkpoint(path, {"a": {"x": torch.zeros(2)}}, {"step": 2})
    monkeypatch.undo()
    assert load_checkpoint(path).state == {"step": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["c"]


@pytest.mark.parametrize("damage", ["cut", "flip", "empty", "pickle", "other"])
def test_a_damaged_file_is_named(tmp_path, damage):
    path = tmp_path / "c"
    save_checkpoint(path, {"a": {"x": torch.ones(50)}}, {"step": 1})
    data = path.read_bytes()
    if damage == "pickle":
        torch.save({"x": torch.ones(2)}, path)
    elif damage == "other":
        from safetensors.torch import save_file

        save_file({"x": torch.ones(2)}, str(path))
    else:
        path.write_bytes({"cut": data[: len(data) // 2], "flip": b"\xff" * 9 + data[9:], "empty": b""}[damage])
    with pytest.raises(CheckpointError, match=r"whole checkpoint|must be a"):
        load_checkpoint(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(CheckpointError, match="no such checkpoint"):
        load_checkpoint(tmp_path / "none")


def test_weights_of_another_network_are_refused(tmp_path):
    with pytest.raises(CheckpointError, match="another network"):
        load_weights(nn.Linear(2, 2), nn.Linear(3, 2).state_dict(), "file")


def test_another_optimiser_is_refused():
    _, optimizer = trained(torch.optim.AdamW, lr=1e-2)
    tensors, scalars = optimizer_tensors(optimizer)
    with pytest.raises(CheckpointError, match="another optimiser"):
        restore_optimizer(torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0), tensors, scalars)


def test_a_step_has_its_own_randomness():
    def draw(*key):
        seed_step(*key)
        return torch.rand(1).item(), np.random.rand(), random.random()

    assert draw(0, 5) == draw(0, 5)
    assert len({draw(0, 5), draw(0, 6), draw(1, 5), draw(0, 5, 1)}) == 4
