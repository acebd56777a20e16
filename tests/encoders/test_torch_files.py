"""What people save beside and around their weights is taken off, and nothing in a file runs."""

from __future__ import annotations

import argparse
import datetime
import logging
import os
import pickle
import zipfile
from collections import OrderedDict, defaultdict, deque
from pathlib import Path, PureWindowsPath

import numpy as np
import pytest
import torch

from encoders.checkpoints import load_foreign
from encoders.state_dicts import read_state_dict
from lens.errors import InputError
from tests.encoders.reference import Reference, arrays, randomise


@pytest.fixture(scope="module")
def reference() -> Reference:
    reference = Reference(depths=(1, 1), widths=(8, 16), strides=(2,))
    randomise(reference)
    return reference


def average(reference: Reference) -> dict[str, torch.Tensor]:
    return {name: tensor / 2 for name, tensor in reference.state_dict().items()}


def assert_plain(path: Path, reference: Reference, taken: str, others: tuple[str, ...] = ()):
    found = read_state_dict(path)
    assert (found.taken, found.others) == (taken, others)
    expected = arrays(reference)
    assert list(found.arrays) == list(expected)
    for name, array in expected.items():
        np.testing.assert_array_equal(found.arrays[name], array)


@pytest.mark.parametrize(
    ("wrap", "taken"),
    [
        (lambda s: {"model_state_dict": s, "optimizer_state_dict": {"state": {0: s}}},
            "model_state_dict"),
        (lambda s: {"network_weights": s, "logging": {"losses": [1.0]}}, "network_weights"),
        (lambda s: {"net": s}, "net"),
        (lambda s: {"model_ema": s, "epoch": 3}, "model_ema"),
        (lambda s: {"encoder": s, "decoder": s}, "encoder"),
        (lambda s: {"my own name": s, "rng_state": torch.ones(3).byte(), "n": torch.ones(())},
            "my own name"),
        (lambda s: {"model": {"name": "a network"}, "state_dict": s}, "state_dict"),
        (lambda s: {"model": {"encoder": s, "head": {"w": torch.ones(2)}}}, "model.encoder"),
        (lambda s: {"model": defaultdict(dict, s)}, "model"),
        (lambda s: {"model": OrderedDict(s)}, "model"),
    ],
)  # fmt: skip
def test_wrappers_are_taken_off(reference, tmp_path, wrap, taken):
    torch.save(wrap(reference.state_dict()), tmp_path / "a.pth")
    others = {"encoder": ("decoder",), "model.encoder": ("model.head",)}.get(taken, ())
    assert_plain(tmp_path / "a.pth", reference, taken, others)


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize(
    "value",
    [
        np.float64(0.75), np.float32(1), np.arange(3), np.dtype("f4"), Path("/data"),
        PureWindowsPath("c:/data"), {Path("key"): 1}, defaultdict(list, {"losses": [1.0]}),
        deque([1, 2]), datetime.datetime(2024, 1, 1), argparse.Namespace(lr=1e-3), {1, 2},
        defaultdict(dict, {"a": {}}),
    ],
    ids=lambda value: type(value).__name__,
)  # fmt: skip
def test_plain_data_beside_the_weights_is_passed_over(reference, tmp_path, value, zipped):
    content = {"model": reference.state_dict(), "options": value}
    torch.save(content, tmp_path / "a.pth", _use_new_zipfile_serialization=zipped)
    assert_plain(tmp_path / "a.pth", reference, "model")


class Trap:
    """Would create a folder when unpickled."""

    def __init__(self, call, path: Path) -> None:
        self.call, self.path = call, str(path)

    def __reduce__(self):
        return self.call, (self.path,)


def make(path: str) -> None:
    Path(path).mkdir()


@pytest.mark.parametrize("call", [os.mkdir, os.system, make, eval, getattr])
@pytest.mark.parametrize("place", ["beside", "in a path", "as a factory"])
def test_what_could_run_is_refused_and_does_not(reference, tmp_path, call, place):
    trap = Trap(call, tmp_path / "ran")
    beside = {
        "beside": trap,
        "in a path": {Path("/data"): np.float64(1), "then": [trap]},
        "as a factory": defaultdict(call),
    }[place]
    torch.save({"model": reference.state_dict(), "options": beside}, tmp_path / "trap.pth")
    with pytest.raises(InputError, match=r"trap\.pth: holds Python objects .* nothing ran .*Save"):
        read_state_dict(tmp_path / "trap.pth")
    assert not (tmp_path / "ran").exists()


def test_a_pickle_by_another_hand_is_not_even_read(tmp_path):
    for protocol in (2, 3, 4, 5):
        path = tmp_path / "a.pkl"
        path.write_bytes(pickle.dumps({"a": Trap(os.mkdir, tmp_path / "ran")}, protocol))
        with pytest.raises(InputError, match=r"pickle that torch\.save did not write"):
            read_state_dict(path)
    assert not (tmp_path / "ran").exists()


def test_other_archives_are_called_what_they_are(tmp_path):
    np.savez(tmp_path / "a.npz", embeddings=np.ones((2, 2)))
    with pytest.raises(InputError, match=r"a\.npz: arrays of NumPy .* as tables"):
        read_state_dict(tmp_path / "a.npz")
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("weights.pth", b"1")
    with pytest.raises(InputError, match=r"a\.zip: an archive, not a checkpoint; unpack"):
        read_state_dict(tmp_path / "a.zip")
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), tmp_path / "a.ts")
    with pytest.raises(InputError, match=r"a\.ts: a TorchScript program.*nothing ran"):
        read_state_dict(tmp_path / "a.ts")


def test_the_keys_of_what_holds_no_weights_are_listed(tmp_path):
    torch.save({"epoch": 3, "config": {"lr": 1}}, tmp_path / "a.pth")
    with pytest.raises(InputError, match=r"no named tensors \(in it: epoch, config\)"):
        read_state_dict(tmp_path / "a.pth")
    weights = {"w": torch.ones(2)}
    torch.save({"generator": weights, "critic": weights}, tmp_path / "a.pth")
    with pytest.raises(InputError, match=r"several sets of weights \(in it: generator, critic\)"):
        read_state_dict(tmp_path / "a.pth")
    endless: dict = {}
    endless["again"] = endless
    torch.save(endless, tmp_path / "a.pth")
    with pytest.raises(InputError, match="no named tensors"):
        read_state_dict(tmp_path / "a.pth")


@pytest.mark.parametrize(
    ("wrap", "taken", "left"),
    [
        (lambda s, e: {"model": s, "model_ema": e}, "model", "model_ema (averaged"),
        (lambda s, e: {"state_dict_ema": e, "state_dict": s}, "state_dict", "state_dict_ema (av"),
        (lambda s, e: {"student": e, "teacher": s}, "teacher (averaged", "student"),
        (lambda s, e: {"state_dict": prefixed("ema_model.", e) | prefixed("model.", s)},
            "state_dict", "ema_model (averaged"),
        (lambda s, e: {"encoder_k": e, "encoder_q": s}, "encoder_q", "encoder_k (averaged"),
        (lambda s, e: prefixed("encoder_k.", e) | prefixed("encoder_q.", s), "encoder_q",
            "encoder_k (averaged"),
    ],
)  # fmt: skip
def test_averaged_weights_are_named_whether_taken_or_left(
    reference, tmp_path, caplog, wrap, taken, left
):
    torch.save(wrap(reference.state_dict(), average(reference)), tmp_path / "a.pth")
    encoder, match = load_foreign(tmp_path / "a.pth")
    expected = reference.stages[0][0].pwconv1.weight.detach().numpy().T  # pyright: ignore
    np.testing.assert_array_equal(encoder.blocks[0][0].expand.kernel[...], expected)  # pyright: ignore
    assert len(match.others) == 1
    said = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    assert len(said) == 1
    assert f"took {taken}" in said[0]
    assert f"left {left}" in said[0]


def prefixed(prefix: str, state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {prefix + name: tensor for name, tensor in state.items()}


def test_averaged_weights_alone_are_said_to_be(reference, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    torch.save({"model_ema": reference.state_dict()}, tmp_path / "a.pth")
    load_foreign(tmp_path / "a.pth")
    assert "took model_ema (averaged over the training, EMA)" in caplog.text


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.to(torch.float8_e4m3fn), r"dwconv\.weight is stored as float8_e4m3fn"),
        (lambda t: torch.quantize_per_tensor(t, 0.1, 0, torch.qint8), "is stored as qint8"),
        (lambda t: torch.empty(t.shape, device="meta"), "no plain array"),
        (lambda t: torch.ones(1).expand(t.shape), "declared, 4 bytes there"),
        (lambda t: t.to(torch.complex64), "holds complex64 numbers; export"),
        (lambda t: t.to(torch.int8), "holds int8 numbers; export"),
        (lambda t: t * float("nan"), r"not finite \(2744 of 2744 values"),
        (lambda t: torch.where(t == t.max(), float("inf"), t), r"not finite \(1 of 2744 values"),
        (lambda t: t.double() * 1e300, "not finite"),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_numbers_that_are_no_weights_are_refused(reference, tmp_path, change, message):
    state = reference.state_dict()
    name = "stages.0.0.dwconv.weight"
    torch.save(state | {name: change(state[name])}, tmp_path / "a.pth")
    with pytest.raises(InputError, match=message) as caught:
        load_foreign(tmp_path / "a.pth")
    assert "a.pth: " in str(caught.value)
    assert name in str(caught.value)
