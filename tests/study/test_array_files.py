"""Arrays in ``.npz``: what a header declares is compared with what is there before it is read."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lens.errors import InputError
from lens.study.tables import read_embeddings

IDS = np.array(["P1", "P2"])


def npy(values: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.lib.format.write_array(stream, values)
    return stream.getvalue()


def declared(shape: tuple[int, ...], entries: bytes = b"") -> bytes:
    stream = io.BytesIO()
    header: Any = {"descr": "<f8", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(stream, header)
    return stream.getvalue() + entries


def archive(path: Path, embeddings: bytes) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as content:
        content.writestr("patient_id.npy", npy(IDS))
        content.writestr("embeddings.npy", embeddings)
    return path


@pytest.mark.parametrize("fortran", [False, True])
def test_what_is_declared_and_there_is_read(tmp_path: Path, fortran: bool) -> None:
    x = np.asarray(np.arange(8.0).reshape(2, 4), order="F" if fortran else "C")
    read = read_embeddings(archive(tmp_path / "x.npz", npy(x)))
    np.testing.assert_array_equal(read.drop(columns="patient_id"), x)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (declared((2, 1 << 38)), r"array 'embeddings' .* declares 4 TiB, the file holds 128 bytes"),
        (declared((2, 4), bytes(32)), "declares 192 bytes, the file holds 160 bytes"),
        (declared((2, 4), bytes(999)), "the file holds 1.101 KiB; it is damaged"),
        (b"\x93NUMPY\x01\x00", "not readable as .npz"),
        (b"text", "not readable as .npz"),
    ],
)
def test_a_header_that_declares_other_bytes_is_refused(
    tmp_path: Path, content: bytes, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        read_embeddings(archive(tmp_path / "x.npz", content))


def test_a_size_that_no_compression_reaches_is_refused(tmp_path: Path) -> None:
    """The archive's own directory declares 4 TiB as the header does; a few bytes cannot hold it."""
    path = archive(tmp_path / "x.npz", declared((2, 1 << 20)))
    shape, size = (2, 1 << 20), len(declared((2, 1 << 20))) + 2 * 8 * (1 << 20)
    small = len(declared(shape)).to_bytes(4, "little")
    content = path.read_bytes()
    assert content.count(small) >= 2
    path.write_bytes(content.replace(small, size.to_bytes(4, "little")))
    with pytest.raises(InputError, match=r"cannot hold the 16 MiB that its header declares"):
        read_embeddings(path)


def test_a_single_array_under_the_name_of_many_is_told(tmp_path: Path) -> None:
    (tmp_path / "x.npz").write_bytes(npy(np.eye(2)))
    with pytest.raises(InputError, match=r"x.npz: .*a single .npy array, without ids. Save it"):
        read_embeddings(tmp_path / "x.npz")


def test_objects_are_never_unpickled(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", patient_id=IDS.astype(object), embeddings=np.eye(2))
    with pytest.raises(InputError, match="'patient_id' is not readable: it holds Python objects"):
        read_embeddings(tmp_path / "x.npz")


def test_ids_in_bytes_that_are_not_utf8_are_named(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", patient_id=np.array([b"M\xfcller", b"b"]), embeddings=np.eye(2))
    with pytest.raises(InputError, match=r"x.npz: the id b'M\\xfcller' is not UTF-8"):
        read_embeddings(tmp_path / "x.npz")


def test_real_numbers_alone_are_embeddings() -> None:
    import jax.numpy as jnp

    half = np.eye(2).astype(jnp.bfloat16)
    np.testing.assert_array_equal(read_embeddings((IDS, half)).iloc[:, 1:], np.eye(2))
    for x, message in [
        (np.eye(2) + 1j, "complex numbers .complex128., whose imaginary parts"),
        (np.eye(2).astype("V2"), "bfloat16"),
        (np.eye(2).astype(bool), "type bool, not numbers"),
        (np.eye(2).astype("m8[s]"), "not numbers"),
    ]:
        with pytest.raises(InputError, match=message):
            read_embeddings((IDS, x))


def test_the_large_end_may_come_first() -> None:
    """As FITS and older scanners write numbers."""
    read = read_embeddings((np.array(["a", "b"], ">U1"), np.eye(2).astype(">f4")))
    assert read["patient_id"].tolist() == ["a", "b"]
    assert read.iloc[:, 1:].sum().tolist() == [1.0, 1.0]
