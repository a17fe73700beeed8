# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Recordings that were cut short, damaged, or made to do harm."""

from __future__ import annotations

import random
import sqlite3
import struct
import tracemalloc
import zlib
from pathlib import Path

import pytest
from bag_writing import RGB_TOPIC, START, recording, split_bag, write_bag
from rosbags.rosbag2 import CompressionMode

from deal_ros.datasets.bag import import_bag
from deal_ros.datasets.bag_reader import Bag, BagError
from deal_ros.datasets.bag_report import ImportConfig
from deal_ros.datasets.base import DatasetError
from deal_ros.datasets.keyframes import KeyframeConfig
from deal_ros.datasets.mcap_stream import MAGIC, DamageError, McapStream, decompress, import_zstd
from deal_ros.datasets.sqlite_stream import SqliteStream
from deal_ros.datasets.store import SampleStore

SOME = ImportConfig(keyframes=KeyframeConfig(1.0, 0, 0, 0))  # one frame in ten is enough to store
FRAMES = 200  # three chunks of one MiB


@pytest.fixture(scope="module")
def recorded(tmp_path_factory) -> dict[str, bytes]:
    """File contents of the same recording in both storages."""
    folder = tmp_path_factory.mktemp("recorded")
    found = {}
    for storage in ("mcap", "sqlite3"):
        bag = write_bag(folder / storage, recording(FRAMES), storage)
        (file,) = [item for item in bag.iterdir() if item.suffix in (".mcap", ".db3")]
        found[storage] = file.read_bytes()
    return found


def damaged(tmp_path: Path, storage: str, data: bytes) -> Path:
    path = tmp_path / f"bag{'.mcap' if storage == 'mcap' else '.db3'}"
    path.write_bytes(data)
    return path


def import_all(tmp_path: Path, path: Path):
    """The report, and the number of frames that were found."""
    with SampleStore.create(tmp_path / "store", []) as store:
        report = import_bag(path, store, SOME)
        assert report.frames["stored"] == len(store) == len([store[index] for index in range(len(store))])
        return report, report.paired


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
@pytest.mark.parametrize("fraction", [0.5, 0.9])
def test_a_recording_cut_short_is_imported_up_to_the_cut(tmp_path, recorded, storage, fraction) -> None:
    data = recorded[storage]
    report, found = import_all(tmp_path, damaged(tmp_path, storage, data[: int(len(data) * fraction)]))
    assert 0.5 * fraction * FRAMES < found < FRAMES
    (where,) = report.damage
    assert "bag." in where
    assert ("byte" in where and "cut short" in where) if storage == "mcap" else "behind row" in where


def test_a_recording_without_its_index_is_imported_whole(tmp_path, recorded) -> None:
    data = recorded["mcap"]
    end = data.index(struct.pack("<BQ", 15, 4))  # the end-of-data record
    report, found = import_all(tmp_path, damaged(tmp_path, "mcap", data[:end]))
    assert found == FRAMES
    assert "end mark" in report.damage[0]


def test_a_flipped_bit_in_a_compressed_chunk_is_found(tmp_path) -> None:
    bag = write_bag(tmp_path / "bag", recording(FRAMES), "mcap", CompressionMode.STORAGE)
    file = next(bag.glob("*.mcap"))
    data = bytearray(file.read_bytes())
    chunk = data.index(b"\x28\xb5\x2f\xfd", len(data) // 2)  # the magic of a zstd frame
    data[chunk + 6 : chunk + 14] = b"\xff" * 8
    file.write_bytes(data)
    report, found = import_all(tmp_path, bag)
    assert 0 < found < FRAMES
    assert report.damage


@pytest.mark.parametrize("flipped", [False, True])
def test_a_flipped_bit_in_a_plain_chunk_is_found_by_its_checksum(tmp_path, recorded, flipped) -> None:
    data, chunks, place = bytearray(recorded["mcap"]), [], len(MAGIC)
    while data[place] != 2:  # the footer
        opcode, length = struct.unpack_from("<BQ", data, place)
        if opcode == 6:
            start, size = place + 9 + 40, struct.unpack_from("<Q", data, place + 9 + 16)[0]
            assert data[start - 12 : start - 8] == bytes(4)  # no name: not compressed
            struct.pack_into("<I", data, place + 9 + 24, zlib.crc32(data[start : start + size]))
            chunks.append((start, size))
        place += 9 + length
    assert len(chunks) == 4
    if flipped:
        start, size = chunks[1]
        data[start + size // 2] ^= 1
    report, found = import_all(tmp_path, damaged(tmp_path, "mcap", bytes(data)))
    assert found == FRAMES if not flipped else 0 < found < FRAMES // 2
    assert ["wrong checksum" in text for text in report.damage] == [True] * flipped


def test_pixels_that_are_gone_when_they_are_asked_for_are_damage(tmp_path, recorded) -> None:
    path = damaged(tmp_path, "mcap", recorded["mcap"])
    images = [message for message in Bag(path).messages() if message.topic == RGB_TOPIC]
    assert images[-1].data[:12] == images[-1].content.head
    with path.open("r+b") as file:
        file.truncate(len(recorded["mcap"]) // 2)
    assert images[0].data
    with pytest.raises(DamageError, match="shorter"):
        _ = images[-1].data


def test_a_recording_that_is_removed_meanwhile_is_read_to_its_end(tmp_path, recorded) -> None:
    path = damaged(tmp_path, "mcap", recorded["mcap"])
    with SampleStore.create(tmp_path / "store", []) as store:
        report = import_bag(path, store, SOME, on_progress=lambda *_: path.unlink(missing_ok=True))
    assert report.frames == {"undecodable": FRAMES}
    assert "cannot be read" in report.problems["undecodable"]


def test_damage_in_one_part_spares_the_others(tmp_path, recorded) -> None:
    parts = [write_bag(tmp_path / f"part{k}", recording(5, start=START + k * 10**10, first=5 * k)) for k in range(3)]
    whole = split_bag(tmp_path / "whole", parts)
    middle = whole / "whole_1.mcap"
    data = middle.read_bytes()
    middle.write_bytes(data[: len(data) // 2])
    report, found = import_all(tmp_path, whole)
    assert 10 <= found < 15
    assert "whole_1.mcap" in report.damage[0]


def test_a_killed_recorder_left_no_metadata(tmp_path, recorded) -> None:
    bag = write_bag(tmp_path / "bag", recording(5))
    (bag / "metadata.yaml").unlink()
    assert import_all(tmp_path, bag)[1] == 5


def test_a_write_ahead_log_is_read(tmp_path) -> None:
    bag = write_bag(tmp_path / "bag", recording(5), "sqlite3")
    file = next(bag.glob("*.db3"))
    database = sqlite3.connect(file)
    database.execute("PRAGMA journal_mode = WAL")
    database.execute(
        "INSERT INTO messages (topic_id, timestamp, data) SELECT topic_id, timestamp + 9, data FROM messages"
    )
    database.commit()
    try:
        assert sum(1 for _ in Bag(bag).messages()) == 32
    finally:
        database.close()


def mcap_with_chunk(tmp_path: Path, compression: str, packed: bytes, size: int) -> Path:
    name = compression.encode()
    chunk = struct.pack("<QQQII", 0, 0, size, 0, len(name)) + name + struct.pack("<Q", len(packed)) + packed
    header = struct.pack("<II", 0, 0)
    path = tmp_path / "bomb.mcap"
    path.write_bytes(
        MAGIC + struct.pack("<BQ", 1, len(header)) + header + struct.pack("<BQ", 6, len(chunk)) + chunk + MAGIC
    )
    return path


@pytest.mark.parametrize("declared", [1000, 1 << 60])
@pytest.mark.parametrize("compression", ["zstd", "lz4"])
def test_a_compression_bomb_costs_no_memory(tmp_path, compression, declared) -> None:
    import lz4.frame

    bomb = bytes(1 << 27)
    packed = import_zstd().compress(bomb) if compression == "zstd" else lz4.frame.compress(bomb)
    del bomb
    tracemalloc.start()
    try:
        with pytest.raises(DamageError, match="declares"):
            list(McapStream(mcap_with_chunk(tmp_path, compression, packed, declared)).messages())
        assert tracemalloc.get_traced_memory()[1] < 16 << 20
    finally:
        tracemalloc.stop()


def test_unknown_compression_is_named() -> None:
    with pytest.raises(ValueError, match="zstd, lz4 or none, got 'brotli'"):
        decompress(b"", "brotli", 0)


def test_foreign_compression_names_the_converting_command(tmp_path) -> None:
    bag = write_bag(tmp_path / "bag", recording(2), "mcap", CompressionMode.MESSAGE)
    metadata = bag / "metadata.yaml"
    metadata.write_text(metadata.read_text().replace("zstd", "bz2"))
    with pytest.raises(BagError, match="ros2 bag convert"):
        Bag(bag)


def test_a_view_instead_of_a_table_is_refused(tmp_path) -> None:
    path = tmp_path / "trap.db3"
    database = sqlite3.connect(path)
    database.execute("CREATE TABLE topics (id, name, type, serialization_format)")
    endless = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT x AS topic_id FROM n"
    database.execute(f"CREATE VIEW messages AS {endless}")
    database.commit()
    database.close()
    stream = SqliteStream(path)
    assert not stream.read_summary()
    with pytest.raises(DamageError, match="lacks the tables"):
        list(stream.messages())


def test_paths_in_metadata_cannot_leave_the_folder(tmp_path, recorded) -> None:
    damaged(tmp_path, "mcap", recorded["mcap"])
    bag = write_bag(tmp_path / "inner", recording(2))
    metadata = bag / "metadata.yaml"
    metadata.write_text(metadata.read_text().replace("inner.mcap", "../bag.mcap"))
    assert [file.parent for file in Bag(bag).files] == [bag]


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
def test_mutated_recordings_never_crash(tmp_path, storage) -> None:
    rng = random.Random(5)
    folder = write_bag(tmp_path / "small", recording(3), storage)
    (file,) = [item for item in folder.iterdir() if item.suffix in (".mcap", ".db3")]
    whole = file.read_bytes()
    path = damaged(tmp_path, storage, whole)
    structure = [i for i in range(len(whole)) if not 3000 < i % 9000 < 8900]  # little use in changing pixels only
    for _ in range(150):
        data = bytearray(whole)
        for _ in range(rng.randint(1, 8)):
            data[rng.choice(structure)] = rng.choice([0, 1, 0x7F, 0xFF, rng.randrange(256)])
        if rng.random() < 0.2:
            del data[rng.randrange(len(data)) :]
        path.write_bytes(data)
        bag = Bag(path)
        count = sum(1 for _ in bag.messages())
        assert count <= 10 or not bag.damage or count < 1000
        bag.topics()
        bag.start_ns()


def test_mutated_messages_never_crash_the_import(tmp_path) -> None:
    rng = random.Random(6)
    from bag_writing import TYPES

    def rubbish():
        for topic, log_ns, message in recording(150, rate_hz=30):
            data = bytearray(TYPES.serialize_cdr(message, message.__msgtype__))
            for _ in range(rng.randint(0, 3)):
                data[rng.randrange(min(len(data), 120))] = rng.choice([0, 0xFF, rng.randrange(256)])
            if rng.random() < 0.1:
                del data[rng.randrange(len(data)) :]
            yield topic, log_ns, bytes(data), message.__msgtype__

    bag = write_bag(tmp_path / "bag", rubbish())
    with SampleStore.create(tmp_path / "store", ["milk"]) as store:
        try:
            report = import_bag(bag, store, ImportConfig(label=("milk",), keyframes=KeyframeConfig(0, 0, 0, 0)))
        except DatasetError as error:
            pytest.fail(f"must go on: {error}")
        for index in range(len(store)):
            assert store[index].rgb.shape[2] == 3
    assert report.received["rgb"] == 150
    assert report.problems
