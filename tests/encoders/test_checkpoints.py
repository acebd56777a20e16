"""Checkpoints survive a round trip, and a bad file gives one clear error and runs nothing."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from flax import nnx
from safetensors.torch import save_file

import encoders
from encoders.checkpoints import load_ours
from encoders.convnext import ConvNeXtV2
from encoders.convnext_weights import convert
from encoders.encoder import parameters
from lens.errors import InputError
from tests.encoders.reference import Reference, arrays, randomise


@pytest.fixture(scope="module")
def reference() -> Reference:
    reference = Reference(depths=(1, 1), widths=(8, 16), strides=(2,))
    randomise(reference)
    return reference


@pytest.fixture(scope="module")
def encoder(reference) -> ConvNeXtV2:
    return convert(arrays(reference))[0]


def assert_equal(ours: ConvNeXtV2, theirs: ConvNeXtV2) -> None:
    assert ours.config == theirs.config
    expected = parameters(theirs)
    for name, parameter in parameters(ours).items():
        np.testing.assert_array_equal(parameter[...], expected[name][...], err_msg=name)


def test_round_trip(encoder, tmp_path):
    path = tmp_path / "folder" / "encoder"
    encoders.save(path, encoder, {"source": "a test"})
    encoders.save(path, encoder, {"source": "again"})
    loaded, metadata = load_ours(path)
    assert_equal(loaded, encoder)
    assert metadata == {"source": "again"}
    assert [p.name for p in path.parent.iterdir()] == ["encoder"]


def test_save_does_not_replace_what_is_not_an_encoder(encoder, tmp_path):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.txt").write_text("years of work")
    with pytest.raises(InputError, match="not an encoder's checkpoint"):
        encoders.save(tmp_path / "thesis", encoder)
    assert (tmp_path / "thesis" / "chapter.txt").read_text() == "years of work"


@pytest.mark.parametrize("wrapper", [None, "model", "state_dict", "teacher"])
def test_torch_files(reference, encoder, tmp_path, wrapper):
    state = reference.state_dict()
    content = state if wrapper is None else {wrapper: state, "epoch": 3}
    torch.save(content, tmp_path / "weights.bin")
    assert_equal(encoders.load(tmp_path / "weights.bin"), encoder)


def test_legacy_torch_file_with_options_and_bfloat16(reference, encoder, tmp_path):
    state = {name: tensor.bfloat16() for name, tensor in reference.state_dict().items()}
    content = {"model": state, "args": argparse.Namespace(lr=1e-3)}
    torch.save(content, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    loaded = encoders.load(tmp_path / "old.pt")
    assert loaded.config == encoder.config
    # bfloat16 has 8 bits.
    np.testing.assert_allclose(
        loaded.blocks[0][0].expand.kernel[...],  # pyright: ignore[reportAttributeAccessIssue]
        encoder.blocks[0][0].expand.kernel[...],
        rtol=2**-8,
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_safetensors(reference, encoder, tmp_path, dtype):
    path = tmp_path / "weights.pth"  # the name says nothing
    save_file({k: v.to(dtype).contiguous() for k, v in reference.state_dict().items()}, path)
    loaded = encoders.load(path)
    if dtype == torch.float32:
        assert_equal(loaded, encoder)
    assert loaded.config == encoder.config


def test_safetensors_need_no_torch(reference, tmp_path):
    save_file(reference.state_dict(), tmp_path / "a.safetensors")
    torch.save(reference.state_dict(), tmp_path / "a.pth")
    script = """
import sys
sys.modules["torch"] = None
import encoders
from lens.errors import InputError
encoders.load(sys.argv[1])
try:
    encoders.load(sys.argv[2])
except InputError as error:
    print(error)
"""
    paths = [str(tmp_path / "a.safetensors"), str(tmp_path / "a.pth")]
    out = subprocess.run(
        [sys.executable, "-c", script, *paths], capture_output=True, text=True, check=True
    )
    assert "a.pth: reading PyTorch files needs torch; install the extra 'torch'" in out.stdout


class Trap:
    """Would create a file when unpickled."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


@pytest.mark.parametrize("zipped", [True, False])
def test_code_in_a_pickle_is_refused_and_does_not_run(reference, tmp_path, zipped):
    content = {"model": reference.state_dict(), "trap": Trap(str(tmp_path / "ran"))}
    torch.save(content, tmp_path / "trap.pth", _use_new_zipfile_serialization=zipped)
    with pytest.raises(InputError, match=r"trap\.pth: holds Python objects .* nothing ran"):
        encoders.load(tmp_path / "trap.pth")
    assert not (tmp_path / "ran").exists()


def truncated(path, reference):
    torch.save(reference.state_dict(), path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def truncated_legacy(path, reference):
    torch.save(reference.state_dict(), path, _use_new_zipfile_serialization=False)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def truncated_safetensors(path, reference):
    save_file(reference.state_dict(), path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def of_another_size(path, reference):
    state = reference.state_dict()
    state["stages.1.0.pwconv1.weight"] = torch.zeros(32, 16)
    torch.save(state, path)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path, _: None, "no such file"),
        (lambda path, _: path.write_bytes(b""), "is empty"),
        (lambda path, _: path.write_text("lr: 0.001, a text file"), "neither a PyTorch file"),
        (truncated, "damaged"),
        (truncated_legacy, "damaged"),
        (truncated_safetensors, "not readable as safetensors"),
        (of_another_size, "1 mismatched: stages.1.0.pwconv1.weight"),
        (lambda path, _: torch.save([1, 2], path), "no named tensors"),
        (lambda path, _: torch.save({"a": torch.zeros(2)}, path), "no ConvNeXt V2 or DINOv2 ViT"),
        (lambda path, _: path.mkdir(), "a folder without encoder.json"),
    ],
)
def test_a_bad_file_gives_one_error_that_names_it(reference, tmp_path, make, message):
    path = tmp_path / "weights.pth"
    make(path, reference)
    with pytest.raises(InputError, match=message) as caught:
        encoders.load(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_damaged_checkpoint_is_refused(encoder, tmp_path):
    path = tmp_path / "encoder"
    encoders.save(path, encoder)
    for file in (path / "parameters").rglob("*"):
        if file.is_file():
            file.write_bytes(file.read_bytes()[:10])
    with pytest.raises(InputError, match="parameters cannot be read"):
        encoders.load(path)


def rewrite(path, name, values):
    """Replaces one parameter under the checkpoint's own writer, its description untouched."""
    import orbax.checkpoint as ocp

    with ocp.StandardCheckpointer() as checkpointer:
        arrays = checkpointer.restore(path / "parameters")
        arrays[name] = values(np.asarray(arrays[name]))
        checkpointer.save(path / "parameters", arrays, force=True)


def edit(path, change):
    description = json.loads((path / "encoder.json").read_text())
    change(description)
    (path / "encoder.json").write_text(json.dumps(description))


def test_changed_contents_are_refused(encoder, tmp_path, caplog):
    """One parameter by its last bit, and one setting that no shape depends on."""
    path = tmp_path / "encoder"
    encoders.save(path, encoder)
    encoders.load(path)
    assert not caplog.records
    rewrite(path, "norm.scale", lambda a: np.nextafter(a, 2, dtype=np.float32))
    with pytest.raises(InputError, match=r"encoder: its contents are not those .* train it again"):
        encoders.load(path)
    encoders.save(path, encoder)
    edit(path, lambda d: d["config"].update(dtype="bfloat16"))
    with pytest.raises(InputError, match="its contents are not those that were written"):
        encoders.load(path)


def test_a_checkpoint_from_before_there_was_a_hash_loads_with_a_note(encoder, tmp_path, caplog):
    path = tmp_path / "encoder"
    encoders.save(path, encoder)
    edit(path, lambda d: d.pop("content_sha256"))
    assert_equal(load_ours(path)[0], encoder)
    assert "written before checkpoints held a hash" in caplog.text


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_weights_that_are_not_finite_are_refused(encoder, tmp_path, value):
    """Of our own format also where no hash tells, and before they are written."""
    path = tmp_path / "encoder"
    encoders.save(path, encoder)
    edit(path, lambda d: d.pop("content_sha256"))
    rewrite(path, "norm.scale", lambda a: np.where(np.arange(a.size) == 3, value, a))
    with pytest.raises(InputError, match=r"norm\.scale is not finite \(1 of 16 values"):
        encoders.load(path)
    broken = nnx.clone(encoder)
    broken.norm.scale.set_value(broken.norm.scale[...].at[3].set(value))
    with pytest.raises(InputError, match=r"norm\.scale is not finite \(1 of 16 values"):
        encoders.save(tmp_path / "new", broken)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    "change",
    [
        {"widths": [-8, 16]}, {"widths": [8, 0]}, {"widths": [8, 10**12]}, {"widths": [8, 1.5]},
        {"widths": "wide"}, {"widths": None}, {"depths": [1, 999_999_999]}, {"depths": [-1, 1]},
        {"depths": [200, 200]}, {"depths": [True, 1]}, {"strides": [0]}, {"strides": [2, 2]},
        {"in_channels": -3}, {"in_channels": 10**9}, {"dims": 4}, {"dtype": "object"},
        {"drop_path": -1}, {"drop_path": float("nan")}, {"size": 3},
    ],
    ids=str,
)  # fmt: skip
def test_an_absurd_configuration_is_refused_at_once(tmp_path, change):
    config = {"dims": 3, "depths": [1, 1], "widths": [8, 16], "in_channels": 3, "strides": [2]}
    (tmp_path / "encoder.json").write_text(json.dumps({"config": config | change}))
    start = time.process_time()
    with pytest.raises(InputError, match=r"encoder\.json: not an encoder's description"):
        encoders.load(tmp_path)
    assert time.process_time() - start < 10


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: os.mkfifo(path), "a pipe, not a file"),
        (lambda path: path.symlink_to("/dev/zero"), "a device, not a file"),
        (lambda path: path.mkdir(), "a folder, not a file"),
        (lambda path: path.write_text("[" * 10**5), "not an encoder's description"),
        (lambda path: path.write_text("[]"), "not an encoder's description"),
        (lambda path: path.write_bytes(b"\xff\xfe"), "not an encoder's description"),
        (lambda path: os.truncate(path.touch() or path, 2**36), "too many for a description"),
    ],
)
def test_a_description_that_is_none_is_refused_at_once(tmp_path, make, message):
    make(tmp_path / "encoder.json")
    with pytest.raises(InputError, match=rf"encoder\.json: .*{message}"):
        encoders.load(tmp_path)


def test_arrays_that_announce_more_than_there_is_are_not_read(encoder, tmp_path):
    """Orbax would fill what is not there with zeros, as much as is announced."""
    path = tmp_path / "encoder"
    encoders.save(path, encoder)
    rewrite(path, "norm.scale", lambda a: np.tile(a, 3))
    with pytest.raises(InputError, match=r"parameters cannot be read .*not those of encoder\.json"):
        encoders.load(path)


def test_a_checkpoint_of_another_shape_is_refused(encoder, tmp_path):
    path = tmp_path / "encoder"
    encoders.save(path, encoder)
    description = json.loads((path / "encoder.json").read_text())
    description["config"]["widths"] = [8, 32]
    (path / "encoder.json").write_text(json.dumps(description))
    with pytest.raises(InputError, match="parameters cannot be read"):
        encoders.load(path)
    (path / "encoder.json").write_text('{"config": {"size": 3}}')
    with pytest.raises(InputError, match="not an encoder's description"):
        encoders.load(path)
