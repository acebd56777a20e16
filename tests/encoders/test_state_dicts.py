"""Files of weights that are no PyTorch file: read together, or called what they are at once."""

from __future__ import annotations

import json
import os
import socket
import time

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file
from safetensors.torch import save_file as save_torch_file

import encoders
from encoders.checkpoints import provenance
from encoders.state_dicts import Match, read_state_dict, source_hash
from lens.errors import InputError

STATE = {f"w{number}": np.full((2, 3), number, np.float32) for number in range(5)}


@pytest.fixture
def index(tmp_path):
    """An index and two files, the second by PyTorch."""
    places = {name: "one.safetensors" if name < "w3" else "two.bin" for name in STATE}
    save_file({n: a for n, a in STATE.items() if n < "w3"}, tmp_path / "one.safetensors")
    second = {n: torch.from_numpy(a) for n, a in STATE.items() if n >= "w3"}
    torch.save(second, tmp_path / "two.bin")
    path = tmp_path / "model.safetensors.index.json"
    path.write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": places}))
    return path


@pytest.mark.parametrize("given", ["index", "folder"])
def test_files_of_an_index_are_read_together(index, given):
    found = read_state_dict(index if given == "index" else index.parent).arrays
    assert list(found) == list(STATE)
    for name, array in STATE.items():
        np.testing.assert_array_equal(found[name], array)


def test_the_hash_of_a_source_is_of_all_its_files(index):
    before, match = source_hash(index), Match({})
    assert provenance(index, match)["source_sha256"] == before
    torch.save({"w3": torch.zeros(2, 3), "w4": torch.zeros(2, 3)}, index.parent / "two.bin")
    assert source_hash(index) != before


def without_a_file(index):
    (index.parent / "two.bin").unlink()


def without_a_parameter(index):
    torch.save({"w3": torch.zeros(2, 3)}, index.parent / "two.bin")


def edited(**changes):
    return lambda index: index.write_text(json.dumps(json.loads(index.read_text()) | changes))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (without_a_file, r"1 of the 2 files it lists are not beside it \(two\.bin\); copy"),
        (without_a_parameter, r"1 of 5 parameters .* first w4 in two\.bin"),
        (edited(weight_map={"w0": "../one.safetensors"}), r"lists \.\./one\.safetensors, which"),
        (edited(weight_map={"w0": "/etc/hostname"}), "not a file beside it; refused"),
        (edited(weight_map={"w0": "model.safetensors.index.json"}), "neither a PyTorch file nor"),
        (edited(weight_map={}), "no index of weights"),
        (edited(weight_map={"w0": 3}), "no index of weights"),
        (edited(weight_map=["w0"]), "no index of weights"),
        (lambda index: index.write_text('{"hidden_sizes": [1, 2]}'), "no index of weights"),
        (lambda index: index.write_text("{" + "[" * 10**5), "no index of weights"),
        (lambda index: index.write_bytes(b"{\xff"), "no index of weights"),
    ],
)
def test_an_index_that_does_not_hold_is_refused(index, change, message):
    change(index)
    with pytest.raises(InputError, match=message) as caught:
        read_state_dict(index)
    assert str(index) in str(caught.value)


@pytest.mark.parametrize("kind", [torch.float8_e4m3fn, torch.float8_e5m2, torch.complex64])
def test_compressed_numbers_are_named(tmp_path, kind):
    path = tmp_path / "a.safetensors"
    save_torch_file({"a": torch.ones(2), "stem.0.weight": torch.ones(3).to(kind)}, path)
    with pytest.raises(InputError, match=r"a\.safetensors: stem\.0\.weight is stored as [FC]"):
        read_state_dict(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\x89HDF\r\n\x1a\n" + bytes(64), "HDF5 .* save the weights as"),
        (b"GGUF\x03" + bytes(64), "GGUF"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "git lfs pull"),
        (b"<!DOCTYPE html><html>Sign in", "web page .* download"),
        (b"\x1f\x8b\x08" + bytes(64), "compressed file; unpack"),
        (b"\x93NUMPY\x01\x00v\x00{'descr'", "array of NumPy"),
        (bytes(200), "neither a PyTorch file nor"),
        (b"\x08\x07\x12\x07pytorch", "neither a PyTorch file nor"),
        (b"\xff\xff\xff\x00\x00\x00\x00\x00{" + bytes(100), "not readable as safetensors"),
        (b"\x20\x00\x00\x00\x00\x00\x00\x00{" + b" " * 31, "not readable as safetensors"),
        (b"\xff" * 7 + b"\x7f{}", "neither a PyTorch file nor"),
    ],
)
def test_other_files_are_called_what_they_are(tmp_path, content, message):
    path = tmp_path / "weights.safetensors"
    path.write_bytes(content)
    with pytest.raises(InputError, match=message) as caught:
        read_state_dict(path)
    assert str(caught.value).startswith(f"{path}: ")


def test_every_cut_of_a_file_is_refused(tmp_path):
    save_file(STATE, tmp_path / "whole.safetensors")
    whole = (tmp_path / "whole.safetensors").read_bytes()
    for size in [*range(1, 64, 7), *range(64, len(whole), 31), len(whole) - 1]:
        (tmp_path / "cut").write_bytes(whole[:size])
        with pytest.raises(InputError, match="cut: "):
            read_state_dict(tmp_path / "cut")


def a_pipe(path):
    os.mkfifo(path)


def a_socket(path):
    with socket.socket(socket.AF_UNIX) as end:
        end.bind(str(path))


def a_loop(path):
    path.symlink_to(path)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (a_pipe, "a pipe, not a file"),
        (a_socket, "a socket, not a file"),
        (lambda path: path.symlink_to("/dev/zero"), "a device, not a file"),
        (a_loop, "symbolic links"),
        (lambda path: path.symlink_to(path.parent / "absent"), "no such file"),
        (lambda path: path.mkdir(), r"a folder without encoder\.json"),
    ],
)
@pytest.mark.parametrize("place", ["the file", "a file of an index"])
def test_what_is_no_file_is_refused_before_it_is_read(
    index, tmp_path_factory, monkeypatch, make, message, place
):
    monkeypatch.chdir(tmp_path_factory.mktemp("short"))  # a socket's path is short
    path = index.parent / "two.bin"
    path.unlink()
    start = time.process_time()
    make(path)
    if place == "the file":
        with pytest.raises(InputError, match=message) as caught:
            encoders.load(path)
        assert str(caught.value).startswith(f"{path}: ")
    else:
        with pytest.raises(InputError, match="1 of the 2 files it lists are not beside it"):
            encoders.load(index)
    assert time.process_time() - start < 30


def test_a_folder_names_the_checkpoints_in_it(tmp_path):
    (tmp_path / "seed-0/encoder").mkdir(parents=True)
    (tmp_path / "seed-0/encoder/encoder.json").write_text("{}")
    with pytest.raises(InputError, match=r"no encoder's checkpoint; give .*seed-0/encoder$"):
        encoders.load(tmp_path)
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights/best.pth").write_bytes(b"1")
    with pytest.raises(InputError, match=r"give .*best\.pth"):
        encoders.load(tmp_path / "weights")
