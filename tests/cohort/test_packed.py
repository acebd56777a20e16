"""Packed files are unpacked once, and are what ITK reads; what is odd about one is left to ITK."""

from __future__ import annotations

import gzip
import platform
import struct
import zlib
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

import lens.cohort.packed as packed
import lens.cohort.reading as reading
from lens.cohort import read_image
from lens.cohort.images import load_image
from lens.cohort.nifti_header import nifti_header
from lens.cohort.packed import read_packed, unpacked
from lens.errors import CaseError
from tests.cohort.builders import image, noise, rotation

ISAL = ("x86_64", "AMD64", "aarch64", "arm64")
"""Processors that pyproject.toml asks for isal on."""

KINDS = ("u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f4", "f8")


def written(path: Path, kind: str = "i2") -> Path:
    values = np.rint(noise((5, 6, 7), seed=3) % 100 - (kind[0] != "u") * 50)
    made = image(values.astype(kind), (0.7, 0.9, 3.1), rotation(x=18.5, z=-5), (20, -30, 40))
    sitk.WriteImage(made, str(path), True)
    return path


def changed(path: Path, change: Callable[[bytearray], object]) -> Path:
    content = bytearray(gzip.decompress(path.read_bytes()))
    change(content)
    path.write_bytes(gzip.compress(bytes(content)))
    return path


def read(path: Path) -> sitk.Image | None:
    return read_packed(path, nifti_header(path, None))


def same(ours: sitk.Image | None, theirs: sitk.Image) -> None:
    assert ours is not None
    assert ours.GetPixelID() == theirs.GetPixelID()
    np.testing.assert_array_equal(sitk.GetArrayFromImage(ours), sitk.GetArrayFromImage(theirs))
    for ask in ("GetSize", "GetSpacing", "GetOrigin", "GetDirection"):
        assert getattr(ours, ask)() == getattr(theirs, ask)()


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_what_itk_reads(tmp_path: Path, kind: str) -> None:
    path = written(tmp_path / "t2.nii.gz", kind)
    same(read(path), sitk.ReadImage(str(path)))


@pytest.mark.parametrize("kind", ["i2", "f4", "f8"])
def test_of_the_other_byte_order_too(tmp_path: Path, kind: str) -> None:
    path = written(tmp_path / "t2.nii.gz", kind)
    plain = sitk.GetArrayFromImage(sitk.ReadImage(str(path)))

    def turn(content: bytearray) -> None:
        for form, places in (("i", [0, 32, 140, 144]), ("h", range(40, 56, 2)), ("h", [36, 68, 70]),
                             ("h", [72, 74, 120, 252, 254]), ("f", range(76, 120, 4)),
                             ("f", range(124, 140, 4)), ("f", range(256, 328, 4))):  # fmt: skip
            for at in places:
                struct.pack_into(
                    f">{form}", content, at, *struct.unpack_from(f"<{form}", content, at)
                )
        content[352:] = plain.astype(f">{kind}").tobytes()

    changed(path, turn)
    assert nifti_header(path, None).stored == np.dtype(f">{kind}")
    same(read(path), sitk.ReadImage(str(path)))
    np.testing.assert_array_equal(sitk.GetArrayFromImage(sitk.ReadImage(str(path))), plain)


ODD: dict[str, Callable[[bytearray], object]] = {
    "slope": lambda c: struct.pack_into("<2f", c, 112, 2.0, 0.0),
    "intercept alone": lambda c: struct.pack_into("<2f", c, 112, 0.0, 5.0),
    "four axes": lambda c: struct.pack_into("<5h", c, 40, 4, 7, 6, 5, 1),
    "more content": lambda c: c.extend(bytes(16)),
    "a few bytes missing": lambda c: c.__delitem__(slice(-3, None)),
    "colour": lambda c: struct.pack_into("<2h", c, 70, 128, 24),
}


@pytest.mark.parametrize("change", ODD.values(), ids=ODD)
def test_what_is_odd_is_left_to_itk(tmp_path: Path, change: Callable[[bytearray], object]) -> None:
    assert read(changed(written(tmp_path / "t2.nii.gz"), change)) is None


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize(("slope", "intercept"), [(0, 0), (2, 0), (1, -1000), (0, 5)])
def test_numbers_that_are_not_finite_are_zeros_and_said(
    tmp_path: Path, value: float, slope: float, intercept: float
) -> None:
    def change(content: bytearray) -> None:
        struct.pack_into("<2f", content, 112, slope, intercept)
        struct.pack_into("<f", content, 352 + 40, value)

    path = changed(written(tmp_path / "t2.nii.gz", "f4"), change)
    assert read(path) is None
    plain = tmp_path / "plain.nii"
    plain.write_bytes(gzip.decompress(path.read_bytes()))
    for file in (path, plain, pair_of(plain)):
        loaded = load_image(file, "P-07")
        # ITK makes zeros of them without a word, and then scales.
        assert sitk.GetArrayFromImage(loaded.image).ravel()[10] == intercept
        note = f"1 voxel(s) are NaN or infinite, and read as {intercept:g}"
        assert [each for each in loaded.notes if "NaN" in each] == [note]
    finite = tmp_path / "finite.nii"
    finite.write_bytes(gzip.decompress(written(tmp_path / "t2.nii.gz", "f8").read_bytes()))
    assert not load_image(finite, "P-07").notes


def pair_of(single: Path) -> Path:
    """The same image as a pair of .hdr and .img."""
    content = bytearray(single.read_bytes())
    struct.pack_into("<f", content, 108, 0)
    content[344:348] = b"ni1\0"
    header = single.with_name("pair.hdr")
    header.write_bytes(content[:348])
    header.with_suffix(".img").write_bytes(content[352:])
    return header


@pytest.mark.parametrize("change", ["slope", "intercept alone"])
def test_a_plain_file_beside_a_packed_one_is_another_image(tmp_path: Path, change: str) -> None:
    path = changed(written(tmp_path / "t2.nii.gz"), ODD[change])
    alone = sitk.GetArrayFromImage(read_image(path, "P-07"))
    other = written(tmp_path / "other.nii.gz", "f4")
    path.with_suffix("").write_bytes(gzip.decompress(other.read_bytes()))
    assert read(path) is None
    # ITK itself takes the voxels of t2.nii when it is asked for t2.nii.gz.
    assert not np.array_equal(sitk.GetArrayFromImage(sitk.ReadImage(str(path))), alone)
    np.testing.assert_array_equal(sitk.GetArrayFromImage(read_image(path, "P-07")), alone)


def test_a_packed_pair_beside_a_plain_one_is_refused(tmp_path: Path) -> None:
    plain = tmp_path / "plain.nii"
    plain.write_bytes(gzip.decompress(written(tmp_path / "t2.nii.gz").read_bytes()))
    header = pair_of(plain)
    for file in (header, header.with_suffix(".img")):
        file.with_name(f"{file.name}.gz").write_bytes(gzip.compress(file.read_bytes()))
    read_image(header, "P-07")
    for name in ("pair.hdr.gz", "pair.img.gz"):
        with pytest.raises(CaseError, match=r"pair\.hdr lies beside pair\.hdr\.gz"):
            read_image(tmp_path / name, "P-07")
    header.unlink()
    with pytest.raises(CaseError, match=r"pair\.img lies beside pair\.img\.gz"):
        read_image(tmp_path / "pair.hdr.gz", "P-07")
    header.with_suffix(".img").unlink()
    assert read_image(tmp_path / "pair.img.gz", "P-07").GetSize() == (7, 6, 5)


def test_an_intercept_without_a_slope_is_added_as_before(tmp_path: Path) -> None:
    path = written(tmp_path / "t2.nii.gz")
    plain = sitk.GetArrayFromImage(read_image(path, "P-07"))
    changed(path, ODD["intercept alone"])
    np.testing.assert_array_equal(sitk.GetArrayFromImage(read_image(path, "P-07")), plain + 5)


@pytest.fixture(params=["zlib", "isal.isal_zlib"])
def unpacker(request: pytest.FixtureRequest, monkeypatch) -> str:
    """The module that unpacks: one after the other, where isal is on this machine."""
    if request.param != "zlib" and platform.machine() not in ISAL:
        pytest.skip("there is no isal for this kind of processor")
    monkeypatch.setattr(packed, "unpacker", import_module(request.param))
    return request.param


@pytest.mark.usefixtures("unpacker")
def test_content_is_that_of_the_gzip_module_or_none(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(packed, "BLOCK", 1000)
    content = np.random.default_rng(0).integers(0, 4, 100_000).astype(np.uint8).tobytes()
    path = tmp_path / "content.gz"
    whole = gzip.compress(content)
    path.write_bytes(whole)
    found = unpacked(path, len(content))
    assert found is not None
    assert found.tobytes() == gzip.decompress(whole)
    assert unpacked(path, len(content) - 1) is None
    assert unpacked(path, len(content) + 1) is None
    damaged = {
        "cut": whole[:-1],
        "cut early": whole[: len(whole) // 2],
        "checksum": whole[:-8] + bytes([whole[-8] ^ 1]) + whole[-7:],
        "length": whole[:-1] + bytes([whole[-1] ^ 1]),
        "content": whole[:500] + bytes([whole[500] ^ 255]) + whole[501:],
        "no gzip": zlib.compress(content),
        "flags that mean nothing": whole[:3] + bytes([0x20]) + whole[4:],
        "two parts": whole + gzip.compress(b"more"),
        "something behind it": whole + b"\0\0",
    }
    for name, bytes_of in damaged.items():
        path.write_bytes(bytes_of)
        assert unpacked(path, len(content)) is None, name


@pytest.mark.usefixtures("unpacker")
def test_of_any_damage_comes_the_content_or_nothing(tmp_path: Path) -> None:
    """What zlib alone says of bits turned over, cuts and bytes put in anywhere in a file."""
    rng = np.random.default_rng(1)
    content = rng.integers(0, 40, 6000).astype(np.int16).tobytes()
    path = tmp_path / "content.gz"
    for whole in (gzip.compress(content, level) for level in (0, 1, 9)):
        places = [*range(12), *range(len(whole) - 8, len(whole)), *rng.integers(12, len(whole), 60)]
        turned = [(at, 1 << bit) for at in places for bit in rng.permutation(8)[:4].tolist()]
        damaged = [whole[:at] + bytes([whole[at] ^ bit]) + whole[at + 1 :] for at, bit in turned]
        damaged += [whole[:at] for at in places]
        damaged += [whole[:at] + rng.bytes(3) + whole[at:] for at in places]
        for each in damaged:
            path.write_bytes(each)
            found = unpacked(path, len(content))
            assert (found is None) == (_by_zlib(each) is None), each[:12]
            assert found is None or found.tobytes() == content


def _by_zlib(packed: bytes) -> bytes | None:
    """The content of a gzip file of one whole part; None of any other."""
    inflater = zlib.decompressobj(wbits=31)
    try:
        content = inflater.decompress(packed)
    except zlib.error:
        return None
    return content if inflater.eof and not inflater.unused_data else None


def test_a_small_file_that_announces_much_takes_no_memory(tmp_path: Path) -> None:
    path = tmp_path / "small.gz"
    path.write_bytes(gzip.compress(b"small"))
    assert unpacked(path, 2**50) is None


def test_a_good_file_is_unpacked_once_and_itk_reads_its_header_alone(
    tmp_path: Path, monkeypatch
) -> None:
    path, bytes_of, opened = written(tmp_path / "t2.nii.gz"), [], []

    def never(*_: object, **__: object) -> None:
        raise AssertionError("ITK unpacked the file again")

    original = packed.unpacked

    def counted(file: Path, length: int) -> np.ndarray | None:
        opened.append(file)
        bytes_of.append(length)
        return original(file, length)

    monkeypatch.setattr(reading.sitk, "ReadImage", never)
    monkeypatch.setattr(reading, "check_content", never)
    monkeypatch.setattr(packed, "unpacked", counted)
    read_image(path, "P-07")
    assert (opened, bytes_of) == ([path], [352 + 2 * 5 * 6 * 7])


def test_a_checksum_that_does_not_fit_is_refused_as_before(tmp_path: Path) -> None:
    path = written(tmp_path / "t2.nii.gz")
    whole = path.read_bytes()
    path.write_bytes(whole[:-8] + bytes([whole[-8] ^ 1]) + whole[-7:])
    with pytest.raises(CaseError, match=r"damaged or cut-off compression: CRC check failed"):
        read_image(path, "P-07")


def test_a_header_that_contradicts_itself_is_refused_packed_or_not(tmp_path: Path) -> None:
    """Bits of a voxel that are not those of its type: what the file should hold cannot be told."""
    path = written(tmp_path / "t2.nii.gz")
    changed(path, lambda content: struct.pack_into("<h", content, 72, 32))
    plain = tmp_path / "t2.nii"
    plain.write_bytes(gzip.decompress(path.read_bytes()))
    said = []
    for each in (path, plain):
        with pytest.raises(CaseError) as error:
            read_image(each, "P")
        said.append(error.value.reason)
    assert said[0] == said[1]
