"""Checkpoints as people save them: each equals the plain one, or is refused by name."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from safetensors.numpy import save_file
from transformers import ConvNextV2Config as HubConfig
from transformers import ConvNextV2Model

import encoders
from encoders.convnext import ConvNeXtV2
from encoders.encoder import encoder_hash, parameters
from lens.errors import InputError
from tests.encoders.reference import arrays

SHARED_CASES = Path(__file__).resolve().parents[3] / "shared" / "cases"


@pytest.fixture(scope="module")
def cases() -> Path:
    if not SHARED_CASES.is_dir():
        pytest.skip("the reported cases are not part of the repository and are not on this machine")
    return SHARED_CASES


@pytest.fixture(scope="module")
def plain(cases) -> ConvNeXtV2:
    encoder = encoders.load(cases / "checkpoint_wrappers/plain.pth")
    assert isinstance(encoder, ConvNeXtV2)
    return encoder


@pytest.mark.parametrize(
    "name",
    [
        "model_ema.pth", "model_state_dict.pth", "net_key.pth", "network_weights.pth",
        "numpy_scalar.pth", "path_in_hyper_parameters.ckpt", "prefix_net.ckpt",
    ],
)  # fmt: skip
def test_a_wrapped_checkpoint_is_the_plain_one(cases, plain, name):
    wrapped = encoders.load(cases / "checkpoint_wrappers" / name)
    assert wrapped.config == plain.config
    assert list(parameters(wrapped)) == list(parameters(plain))
    assert encoder_hash(wrapped) == encoder_hash(plain)


def test_float8_is_named(cases):
    path = cases / "checkpoints/fp8.safetensors"
    with pytest.raises(InputError, match=r"fp8\.safetensors: .* is stored as F8_E4M3.*float32"):
        encoders.load(path)


def test_an_index_without_its_files_names_them(cases):
    with pytest.raises(InputError, match=r"2 of the 2 files it lists .*model-00001-of-00002"):
        encoders.load(cases / "checkpoints/model.safetensors.index.json")


def test_the_files_of_the_index_are_read_together(cases, tmp_path):
    """With files as the index lists them, made here: every parameter comes from its own."""
    index = tmp_path / "model.safetensors.index.json"
    text = (cases / "checkpoints" / index.name).read_text()
    index.write_text(text)
    places = json.loads(text)["weight_map"]
    sizes = HubConfig(hidden_sizes=[8, 16, 32, 64], depths=[1, 1, 1, 1])
    state = arrays(ConvNextV2Model(sizes))
    assert set(state) == set(places)
    for shard in set(places.values()):
        save_file({n: a for n, a in state.items() if places[n] == shard}, tmp_path / shard)
    save_file(state, tmp_path / "one.safetensors")
    whole = encoders.load(tmp_path / "one.safetensors")
    assert encoder_hash(encoders.load(index)) == encoder_hash(whole)
