# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""python test/support/image_promises.py FOLDER: what images cost that promise 67 megapixels in a few bytes.

Prints JSON: for each kind of image and way in, by how many MB the resident memory of this process grew meanwhile, and
the answer. Needs Linux.
"""

from __future__ import annotations

import dataclasses
import json
import struct
import sys
import zlib
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from peak_memory import peak_mb
from store_frames import CLASSES, frame

from deal_ros.datasets.base import DatasetError
from deal_ros.datasets.image_files import read_ids, read_png8, read_png16, read_rgb
from deal_ros.datasets.store import SampleStore, StoreError
from deal_ros.datasets.store_files import read_image
from deal_ros.images import ImageError, decode_color, decode_depth

FOLDER = Path(sys.argv[1])
SIDE = 8192
PROGRESSIVE = (cv2.IMWRITE_JPEG_PROGRESSIVE, 1)


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_with_a_long_chunk(bits: int = 8, color: int = 2) -> bytes:
    """An honest 16 × 16 image, but for the length of its data."""
    honest = cv2.imencode(".png", np.zeros((16, 16, 3)[: 3 if color == 2 else 2], f"u{bits // 8}"))[1].tobytes()
    at = honest.index(b"IDAT") - 4
    return honest[:at] + struct.pack(">I", 0x7FFFFF00) + honest[at + 4 :]


def png_cut_in_a_header() -> bytes:
    """Ends within the length and name of a chunk."""
    return png_with_a_long_chunk()[:41]


def png(bits: int, color: int, interlaced: int = 0) -> bytes:
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", SIDE, SIDE, bits, color, 0, 0, interlaced))
    palette = chunk(b"PLTE", bytes(768)) if color == 3 else b""
    return b"\x89PNG\r\n\x1a\n" + head + palette + chunk(b"IDAT", zlib.compress(bytes(100))) + chunk(b"IEND", b"")


def jpg(side: int = SIDE, frame: int = 0, options: tuple[int, ...] = ()) -> bytes:
    """``frame``: another marker of the frame header, which names the kind of compression."""
    data = bytearray(cv2.imencode(".jpg", np.zeros((16, 16, 3), np.uint8), options)[1].tobytes())
    at = max(data.find(b"\xff\xc0"), data.find(b"\xff\xc2"))
    data[at + 5 : at + 9] = struct.pack(">HH", side, side)
    data[at + 1] = frame or data[at + 1]
    return bytes(data)


def tif() -> bytes:
    options = [cv2.IMWRITE_TIFF_COMPRESSION, 8]
    data = bytearray(cv2.imencode(".tif", np.zeros((64, 64, 3), np.uint8), options)[1].tobytes())
    at = struct.unpack_from("<I", data, 4)[0]
    for entry in range(at + 2, at + 2 + 12 * struct.unpack_from("<H", data, at)[0], 12):
        if struct.unpack_from("<H", data, entry)[0] in (256, 257, 278):  # width, height, rows of a strip
            struct.pack_into("<HII", data, entry + 2, 4, 1, SIDE)
    return bytes(data)


def rvl(side: int, *words: int) -> bytes:
    """``words`` of eight nibbles: three bits each, least significant first, the fourth set while more follow."""
    return struct.pack(f"<{2 + len(words)}I", side, side, *words)


def color(data: bytes) -> None:
    decode_color(SimpleNamespace(format="jpeg", data=data))


def depth(data: bytes, kind: str = "png") -> None:
    decode_depth(SimpleNamespace(format=f"16UC1; compressedDepth {kind}", data=bytes(12) + data))


def depth_rvl(data: bytes) -> None:
    depth(data, "rvl")


def through_file(read, name: str):
    def run(data: bytes) -> None:
        (FOLDER / name).write_bytes(data)
        read(FOLDER / name)

    return run


def through_store(kind: str):
    def run(data: bytes) -> None:
        path = FOLDER / f"store of {kind}"
        with SampleStore.create(path, CLASSES) as made:
            made.append(frame())
            entry = dataclasses.replace(made.entry(0), size=(SIDE, SIDE))
        next((path / kind).iterdir()).write_bytes(data)
        read_image(path, kind, entry)

    return run


def warm_up() -> None:
    """Each path once with something honest: libraries load at first use."""
    picture = np.zeros((16, 16, 3), np.uint8)
    for extension in (".png", ".jpg", ".tif"):
        through_file(read_rgb, f"honest{extension}")(cv2.imencode(extension, picture)[1].tobytes())
    grey = cv2.imencode(".png", picture[..., 0])[1].tobytes()
    for read in (read_ids, read_png8):
        through_file(read, "grey.png")(grey)
    depth(cv2.imencode(".png", picture[..., 0].astype(np.uint16))[1].tobytes())
    depth_rvl(rvl(4, 0x82000000))  # sixteen zeros
    with SampleStore.create(FOLDER / "honest", CLASSES) as made:
        made.append(frame())
        made[0]


KINDS = [(8, 2), (16, 6), (16, 0), (8, 0), (1, 0), (8, 3)]
CASES = [
    *(
        (f"png {bits} bits, colour type {kind}, {way}", color, png(bits, kind, way))
        for bits, kind in KINDS
        for way in (0, 1)
    ),
    ("png with a chunk of 2 GB", color, png_with_a_long_chunk()),
    ("png that ends in a chunk's header", color, png_cut_in_a_header()),
    ("depth png with a chunk of 2 GB", depth, png_with_a_long_chunk(16, 0)),
    ("photo png with a chunk of 2 GB", through_file(read_rgb, "long.png"), png_with_a_long_chunk()),
    ("mask png with a chunk of 2 GB", through_file(read_ids, "long.png"), png_with_a_long_chunk(8, 0)),
    ("label map png with a chunk of 2 GB", through_file(read_png8, "long.png"), png_with_a_long_chunk(8, 0)),
    ("depth map png with a chunk of 2 GB", through_file(read_png16, "long.png"), png_with_a_long_chunk(16, 0)),
    ("store, depth with a chunk of 2 GB", through_store("depth"), png_with_a_long_chunk(16, 0)),
    ("jpg", color, jpg()),
    ("jpg progressive", color, jpg(options=PROGRESSIVE)),
    ("jpg arithmetic", color, jpg(frame=0xC9)),
    ("jpg arithmetic progressive", color, jpg(frame=0xCA, options=PROGRESSIVE)),
    ("jpg lossless", color, jpg(frame=0xC3)),
    ("depth png", depth, png(16, 0)),
    ("depth png of colour", depth, png(8, 2)),
    ("depth rvl without returns", depth_rvl, rvl(SIDE, 0x88888888, 0x40000000)),
    ("depth rvl of one pixel, 4 MB behind", depth_rvl, rvl(1) + bytes(4_000_000)),
    ("photo jpg", through_file(read_rgb, "a.jpg"), jpg()),
    ("photo jpg of another name", through_file(read_rgb, "a.bmp"), jpg()),
    ("photo tif", through_file(read_rgb, "a.tif"), tif()),
    ("mask png", through_file(read_ids, "mask.png"), png(8, 3)),
    ("depth map png", through_file(read_png16, "depth.png"), png(16, 0)),
    ("label map png", through_file(read_png8, "label.png"), png(8, 0)),
    ("label map that is a jpg", through_file(read_png8, "label.jpg"), jpg(30000)),
    ("store, colour", through_store("rgb"), jpg()),
    ("store, depth", through_store("depth"), png(16, 0)),
]


if __name__ == "__main__":
    warm_up()
    found = {}
    for name, read, data in CASES:
        before = peak_mb(begin=True)
        try:
            read(data)
            answer = "taken"
        except (ImageError, DatasetError, StoreError) as error:
            answer = str(error)
        found[name] = (peak_mb() - before, answer)
    print(json.dumps(found))
