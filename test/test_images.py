# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import array
import random
import struct
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from image_messages import compressed_depth_message, compressed_message, encode_rvl, inverse_depth, raw_message

from deal_ros import images
from deal_ros.image_headers import declared_size
from deal_ros.images import (
    ImageError,
    decode_color,
    decode_depth,
    decode_rvl,
    encoded_size,
    metres_from_units,
    units_from_metres,
)

RNG = np.random.default_rng(0)
RGB = RNG.integers(0, 256, (7, 9, 3)).astype(np.uint8)
MILLIMETRES = RNG.integers(0, 65536, (7, 9)).astype(np.uint16)
MILLIMETRES[RNG.random((7, 9)) < 0.4] = 0
ALPHA = RNG.integers(0, 256, (7, 9, 1)).astype(np.uint8)
GREY = np.repeat(RGB[..., :1], 3, axis=2)


@pytest.mark.parametrize("padding", [0, 1, 7])
@pytest.mark.parametrize(
    ("encoding", "pixels", "expected"),
    [
        ("rgb8", RGB, RGB),
        ("bgr8", RGB[..., ::-1], RGB),
        ("8UC3", RGB[..., ::-1], RGB),
        ("rgba8", np.concatenate([RGB, ALPHA], 2), RGB),
        ("bgra8", np.concatenate([RGB[..., ::-1], ALPHA], 2), RGB),
        ("8UC4", np.concatenate([RGB[..., ::-1], ALPHA], 2), RGB),
        ("mono8", RGB[..., 0], GREY),
        ("8UC1", RGB[..., 0], GREY),
    ],
)
def test_colour_comes_back_exactly(encoding, pixels, expected, padding) -> None:
    found = decode_color(raw_message(pixels, encoding, padding=padding))
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("big_endian", [False, True])
@pytest.mark.parametrize("padding", [0, 2, 5])
@pytest.mark.parametrize("encoding", ["rgb16", "bgr16", "rgba16", "bgra16", "mono16", "16UC1"])
def test_sixteen_bit_colour_keeps_its_upper_byte(encoding, padding, big_endian) -> None:
    wide = RGB.astype(np.uint16) * 256 + 200
    if encoding in ("mono16", "16UC1"):
        pixels, expected = wide[..., 0], GREY
    else:
        pixels = wide if encoding.startswith("rgb") else wide[..., ::-1]
        pixels = np.concatenate([pixels, wide[..., :1]], 2) if "a" in encoding else pixels
        expected = RGB
    found = decode_color(raw_message(pixels, encoding, padding=padding, big_endian=big_endian))
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("padding", [0, 1, 6])
@pytest.mark.parametrize("big_endian", [False, True])
def test_depth_comes_back_exactly(padding, big_endian) -> None:
    expected = metres_from_units(MILLIMETRES)
    options = {"padding": padding, "big_endian": big_endian}
    for encoding in ("16UC1", "mono16"):
        np.testing.assert_array_equal(decode_depth(raw_message(MILLIMETRES, encoding, **options)), expected)
    metres = expected.copy()
    metres[0, :4] = [np.nan, np.inf, -np.inf, -1]
    expected[0, :4] = 0
    found = decode_depth(raw_message(metres, "32FC1", **options))
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, expected)


def test_colour_is_not_copied_needlessly() -> None:
    message = raw_message(RGB, "rgb8", padding=3)
    assert np.shares_memory(decode_color(message), np.frombuffer(message.data, np.uint8))


@pytest.mark.parametrize("container", [bytes, bytearray, memoryview, lambda b: array.array("B", b)])
def test_any_buffer_will_do(container) -> None:
    message = raw_message(RGB, "rgb8")
    message.data = container(message.data)
    np.testing.assert_array_equal(decode_color(message), RGB)


def test_the_last_row_may_lack_its_padding() -> None:
    message = raw_message(RGB, "rgb8", padding=4)
    message.data = message.data[:-4]
    np.testing.assert_array_equal(decode_color(message), RGB)


def test_compressed_colour() -> None:
    np.testing.assert_array_equal(decode_color(compressed_message(RGB)), RGB)
    smooth = np.tile(np.arange(0, 128, 2, dtype=np.uint8)[None, :, None], (48, 1, 3))
    assert np.abs(decode_color(compressed_message(smooth, "jpg")).astype(int) - smooth).max() <= 3


@pytest.mark.parametrize("transport", ["png", "rvl"])
def test_compressed_depth(transport) -> None:
    found = decode_depth(compressed_depth_message(MILLIMETRES, transport=transport))
    np.testing.assert_array_equal(found, metres_from_units(MILLIMETRES))


@pytest.mark.parametrize("transport", ["png", "rvl"])
def test_inverse_depth_quantisation(transport) -> None:
    depth = RNG.uniform(0.3, 9, (12, 16)).astype(np.float32)
    depth[0, :3] = [np.nan, 0, 20]
    raw, parameters = inverse_depth(depth)
    found = decode_depth(compressed_depth_message(raw, "32FC1", transport, parameters))
    assert (found[0, :3] == 0).all()
    valid = found > 0
    assert valid.sum() == depth.size - 3
    # one quantisation step at z is z²/A
    assert (np.abs(found - depth)[valid] <= 0.51 * depth[valid] ** 2 / parameters[0] + 1e-6).all()


@settings(max_examples=100, deadline=None)
@given(
    hnp.arrays(np.uint16, hnp.array_shapes(min_dims=2, max_dims=2, max_side=12), elements=st.integers(0, 65535),
               fill=st.just(0))
)  # fmt: skip
def test_rvl_round_trip(raw) -> None:
    payload = struct.pack("<II", raw.shape[1], raw.shape[0]) + encode_rvl(raw)
    np.testing.assert_array_equal(decode_rvl(np.frombuffer(payload, np.uint8)), raw)


def rvl(raw: np.ndarray, behind: bytes = b"") -> np.ndarray:
    return np.frombuffer(struct.pack("<II", raw.shape[1], raw.shape[0]) + encode_rvl(raw) + behind, np.uint8)


@settings(max_examples=100, deadline=None)
@given(
    hnp.arrays(np.uint16, hnp.array_shapes(min_dims=2, max_dims=2, max_side=12),
               elements=st.sampled_from([0, 0, 1, 32768, 65535])),
    st.integers(10, 40),
    st.binary(max_size=40),
)  # fmt: skip
def test_rvl_is_whole_wherever_it_is_cut_into_pieces(raw, piece, behind) -> None:
    """Large steps take the longest codes; what follows the last pixel is not looked at."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(images, "_NIBBLES_AT_ONCE", piece)
        np.testing.assert_array_equal(decode_rvl(rvl(raw, behind)), raw)


@pytest.mark.parametrize("raw", [[[65535]], [[1, 65535, 1, 65535]], [[65535, 0, 65535, 0]], [[0, 0, 0]], [[0, 65535]]])
def test_the_longest_rvl_codes_are_read_to_their_end(raw) -> None:
    np.testing.assert_array_equal(decode_rvl(rvl(np.array(raw, np.uint16), bytes(64))), raw)


@pytest.mark.parametrize("encoding", ["bayer_rggb8", "bayer_bggr8", "bayer_gbrg8", "bayer_grbg8"])
def test_bayer_finds_the_colour(encoding) -> None:
    pytest.importorskip("rosbags.image")
    color = {"r": 200, "g": 120, "b": 40}
    tile = [color[letter] for letter in encoding.split("_")[1][:4]]
    mosaic = np.tile(np.array(tile, np.uint8).reshape(2, 2), (8, 8))
    found = decode_color(raw_message(mosaic, encoding, padding=3))
    np.testing.assert_array_equal(found[4:-4, 4:-4].reshape(-1, 3), np.tile([200, 120, 40], (64, 1)))


@pytest.mark.parametrize("padding", [0, 10])
@pytest.mark.parametrize("encoding", ["nv12", "nv21"])
def test_semi_planar_yuv_keeps_size_and_colours(encoding: str, padding: int) -> None:
    """As sensor_msgs has it: height rows of luma, then half as many of both chromas, each of step bytes."""
    rgb = np.zeros((48, 64, 3), np.uint8)
    rgb[:, :32], rgb[:, 32:], rgb[:24] = (255, 0, 0), (0, 0, 255), (10, 200, 60)
    planar = cv2.cvtColor(rgb, cv2.COLOR_RGB2YUV_I420).reshape(-1)
    u, v = planar[48 * 64 :].reshape(2, 24, 32)
    chroma = np.stack([u, v] if encoding == "nv12" else [v, u], axis=-1).reshape(24, 64)
    rows = np.pad(np.vstack([planar[: 48 * 64].reshape(48, 64), chroma]), ((0, 0), (0, padding)))
    message = SimpleNamespace(
        height=48, width=64, encoding=encoding, is_bigendian=0, step=64 + padding, data=rows.tobytes()
    )
    np.testing.assert_allclose(decode_color(message), rgb, atol=4)
    message.data = message.data[: (64 + padding) * 48]
    with pytest.raises(ImageError, match=r"data must have .* for 72 rows"):
        decode_color(message)
    message.height = 47
    with pytest.raises(ImageError, match=r"nv.. needs even height and width, got 47 x 64"):
        decode_color(message)
    message.encoding = "nv24"
    with pytest.raises(ImageError, match="got 'nv24'"):
        decode_color(message)


def test_yuv_grey() -> None:
    pytest.importorskip("rosbags.image")
    pixels = np.full((8, 8, 2), 128, np.uint8)
    pixels[..., 1] = 180
    found = decode_color(raw_message(pixels, "uyvy"))
    assert np.ptp(found) == 0
    assert 175 < found[0, 0, 0] < 200


def test_units_and_metres_are_inverse() -> None:
    every = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    for unit in (0.001, 0.0001, 0.00025):
        np.testing.assert_array_equal(units_from_metres(metres_from_units(every, unit), unit), every)
    odd = np.array([[np.nan, np.inf, -np.inf, -1, 0, 0.0004, 66.0, 65.535]], np.float32)
    assert units_from_metres(odd).tolist() == [[0, 0, 0, 0, 0, 0, 0, 65535]]


def changed(message, **values):
    return SimpleNamespace(**{**vars(message), **values})


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (changed(raw_message(RGB, "rgb8"), step=26), "step must be at least 27"),
        (changed(raw_message(RGB, "rgb8"), height=8), "data must have 216 bytes"),
        (changed(raw_message(RGB, "rgb8"), height=-1), "1..32768"),
        (changed(raw_message(RGB, "rgb8"), height=2**31, width=2**31), "1..32768"),
        (changed(raw_message(RGB, "rgb8"), height=20000, width=20000, step=60000), "67108864 pixels"),
        (changed(raw_message(RGB, "rgb8"), step=2**32 - 1), "data must have"),
        (changed(raw_message(RGB, "rgb8"), encoding="32FC7"), "colour encoding must be one of"),
        (changed(raw_message(RGB, "rgb8"), data=b""), "data must have"),
        (changed(compressed_message(RGB), data=b""), "PNG or JPEG"),
        (changed(compressed_message(RGB), data=compressed_message(RGB).data[:60]), "must be there whole"),
        (changed(compressed_message(RGB, "jpg"), data=compressed_message(RGB, "jpg").data[:20]), "no frame header"),
        (changed(raw_message(RGB[:5, :5, 0], "bayer_rggb8"), data=b"abc"), "data must have"),
    ],
)
def test_bad_colour_is_explained(message, expected) -> None:
    with pytest.raises(ImageError, match=expected):
        decode_color(message)


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (raw_message(RGB, "rgb8"), "16UC1 .millimetres. or 32FC1"),
        (compressed_message(RGB, "jpg"), "JPEG destroys depth"),
        (changed(compressed_depth_message(MILLIMETRES), data=b"123"), "12-byte header"),
        (changed(compressed_depth_message(MILLIMETRES), format="64FC1; compressedDepth png"), "must have the format"),
        (SimpleNamespace(format="16UC1; compressedDepth rvl", data=b"x" * 16), "8 bytes of size"),
        (SimpleNamespace(format="16UC1; compressedDepth rvl", data=b"x" * 12 + b"\xff" * 8), "1..32768"),
        (
            SimpleNamespace(format="16UC1; compressedDepth rvl", data=b"x" * 12 + struct.pack("<II", 4, 4)),
            "end after 0",
        ),
        (
            SimpleNamespace(
                format="16UC1; compressedDepth png",
                data=b"x" * 12 + cv2.imencode(".png", RGB)[1].tobytes(),
            ),
            "16-bit grey PNG",
        ),
    ],
)
def test_bad_depth_is_explained(message, expected) -> None:
    with pytest.raises(ImageError, match=expected):
        decode_depth(message)


def test_a_huge_png_is_refused_by_its_header() -> None:
    png = bytearray(cv2.imencode(".png", RGB)[1].tobytes())
    png[16:24] = struct.pack(">II", 30000, 30000)
    with pytest.raises(ImageError, match="67108864 pixels"):
        encoded_size(png)


# --- what a header promises and the data can hold ---------------------------------------------------------------------

SAMPLINGS = [getattr(cv2, f"IMWRITE_JPEG_SAMPLING_FACTOR_{kind}", None) for kind in (411, 420, 422, 440, 444)]


def jpeg(picture: np.ndarray, quality=95, progressive=0, optimise=0, restart=0, sampling=None) -> bytes:
    options = [cv2.IMWRITE_JPEG_QUALITY, quality, cv2.IMWRITE_JPEG_PROGRESSIVE, progressive]
    options += [cv2.IMWRITE_JPEG_OPTIMIZE, optimise, cv2.IMWRITE_JPEG_RST_INTERVAL, restart]
    options += [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, sampling] if sampling else []
    return cv2.imencode(".jpg", picture, options)[1].tobytes()


@settings(max_examples=200, deadline=None)
@given(
    st.integers(1, 400), st.integers(1, 400), st.sampled_from([1, 3]), st.integers(0, 255),
    st.sampled_from([0, 3, 200]), st.integers(0, 100), st.integers(0, 1), st.integers(0, 1),
    st.sampled_from([0, 0, 1, 7]), st.sampled_from(SAMPLINGS),
)  # fmt: skip
def test_no_jpeg_is_refused_for_being_small(
    height, width, channels, value, noise, quality, progressive, optimise, restart, sampling
) -> None:
    """Of any flatness, at any quality, as OpenCV (libjpeg-turbo) writes it."""
    picture = np.full((height, width, channels), value, np.int16)
    picture += np.random.default_rng(0).integers(0, noise + 1, picture.shape, np.int16)
    data = jpeg(np.clip(picture, 0, 255).astype(np.uint8), quality, progressive, optimise, restart, sampling)
    assert encoded_size(data) == ("jpg", height, width)


@pytest.mark.parametrize("sampling", SAMPLINGS)
@pytest.mark.parametrize("progressive", [0, 1])
@pytest.mark.parametrize("channels", [1, 3])
def test_the_flattest_large_jpeg_is_not_refused(channels, progressive, sampling) -> None:
    """Without noise and with codes made for it, where headers no longer count: the least that an encoder can do."""
    flat = np.full((2048, 4096, channels), 128, np.uint8)
    data = jpeg(flat, 1, progressive, 1, 0, sampling)
    assert encoded_size(data) == ("jpg", 2048, 4096)
    with pytest.raises(ImageError, match=r"must have at least \d+ bytes, got \d+: cut short"):
        encoded_size(data[: len(data) // 8])


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 300), st.integers(1, 300), st.sampled_from([np.uint8, np.uint16]), st.sampled_from([1, 3, 4]),
       st.integers(0, 255), st.integers(0, 9))  # fmt: skip
def test_no_png_is_refused_for_being_small(height, width, kind, channels, value, compression) -> None:
    flat = np.full((height, width, channels), value, kind)
    data = cv2.imencode(".png", flat, [cv2.IMWRITE_PNG_COMPRESSION, compression])[1].tobytes()
    assert encoded_size(data) == ("png", height, width)


def with_size(data: bytes, height: int, width: int, frame: int = 0xC0) -> bytes:
    """A JPEG whose header declares another size."""
    at = data.index(bytes([0xFF, frame])) + 5
    return data[:at] + struct.pack(">HH", height, width) + data[at + 4 :]


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (with_size(jpeg(RGB), 8192, 8192), "8192 x 8192 pixels must have at least 196608 bytes"),  # 4:2:0: 1.5 blocks
        (with_size(jpeg(RGB, progressive=1), 8192, 8192, 0xC2), "must have at least 196608 bytes"),
        (with_size(jpeg(RGB[..., 0]), 8192, 8192), "must have at least 131072 bytes"),
        (with_size(jpeg(RGB), 30000, 30000), "67108864 pixels"),
        (jpeg(RGB).replace(b"\xff\xc0", b"\xff\xc9"), "Huffman codes, got SOF9"),
        (jpeg(RGB).replace(b"\xff\xc0\x00\x11\x08\x00\x07\x00\x09\x03\x01\x22",
                           b"\xff\xc0\x00\x11\x08\x00\x07\x00\x09\x03\x01\x20"), "sampled 1..4 times"),
        (jpeg(RGB)[: jpeg(RGB).index(b"\xff\xc0") + 12], "1..4 components"),
        (jpeg(RGB, progressive=1) + b"\xff\xda\x00\x08\x01\x01\x00\x01\x3f\x00" * 100, "at most 100 scans, got 110"),
        (b"\xff\xd8" + b"\xff\xfe\x00\x02" * 200_000 + jpeg(RGB)[2:], "no frame header"),
    ],
    ids=["baseline", "progressive", "grey", "huge", "arithmetic", "sampling", "cut", "scans", "segments"],
)  # fmt: skip
def test_a_jpeg_that_promises_too_much_is_refused_by_its_header(data, expected) -> None:
    with pytest.raises(ImageError, match=expected):
        encoded_size(data)


@pytest.mark.parametrize(
    "message",
    [
        raw_message(RGB, "rgb8", padding=2),
        *(compressed_message(RGB, kind) for kind in ("png", "jpg")),
        *(compressed_depth_message(MILLIMETRES, transport=kind) for kind in ("png", "rvl")),
    ],
)
def test_the_size_is_known_before_anything_is_decoded(message) -> None:
    assert declared_size(message) == (7, 9)
    if hasattr(message, "format"):
        with pytest.raises(ImageError):
            declared_size(changed(message, data=message.data[:16]))


def test_mutated_payloads_never_crash() -> None:
    rng = random.Random(7)
    messages = [
        raw_message(RGB, "rgb8", padding=2),
        raw_message(MILLIMETRES, "16UC1", big_endian=True),
        raw_message(RGB[..., 0], "bayer_rggb8"),
        compressed_message(RGB, "png"),
        compressed_message(RGB, "jpg"),
        compressed_depth_message(MILLIMETRES),
        compressed_depth_message(MILLIMETRES, transport="rvl"),
        compressed_depth_message(MILLIMETRES, "32FC1", "rvl", (10100.0, -1009.0)),
    ]
    refused = 0
    for round_ in range(1000):
        message = SimpleNamespace(**vars(rng.choice(messages)))
        data = bytearray(message.data)
        for _ in range(rng.randint(0, 6)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        message.data = bytes(data[: rng.choice([len(data), rng.randrange(len(data) + 1)])])
        if rng.random() < 0.5 and hasattr(message, "step"):
            name = rng.choice(["height", "width", "step", "is_bigendian", "encoding"])
            weird = [0, 1, -1, 3, 2**31, 2**32 - 1, 2**63, rng.randrange(100)]
            encodings = ["", "rgb8", "yuv422", "nv12", "bayer_x", "32FC1", "\0", "16UC1"]
            setattr(message, name, rng.choice(encodings if name == "encoding" else weird))
        for decode, size in ((decode_color, 3), (decode_depth, 2)):
            try:
                image = decode(message)
            except ImageError:
                refused += 1
            else:
                assert image.ndim == size, round_
                assert image.dtype == (np.uint8 if size == 3 else np.float32)
                assert size == 3 or (np.isfinite(image) & (image >= 0)).all()
    assert refused > 500
