"""A new family is a module and a line: a tiny one is stored, embedded, converted and fine-tuned."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from safetensors.numpy import save_file

import encoders
from encoders.checkpoints import load_foreign
from encoders.convnext import ConvNeXtV2, ConvNeXtV2Config
from encoders.encoder import Encoder, EncoderConfig, parameters, reconfigure
from encoders.families import FAMILIES, Family
from encoders.state_dicts import Match
from encoders.steps import layer_scales
from lens.errors import InputError
from tests.encoders.planted import balls, small_encoder

QUIET = encoders.Tracking(progress=False)


@dataclass(frozen=True)
class ConvNetConfig:
    """Two stages of stride 2."""

    widths: tuple[int, ...] = (4, 6)
    in_channels: int = 1
    dims: int = 3
    dtype: str = "float32"

    @property
    def features(self) -> int:
        return self.widths[-1]

    @property
    def total_strides(self) -> tuple[int, ...]:
        return (2, 4)


class ConvNet(nnx.Module):
    """Convolution and ReLU, twice; the embedding is the mean of the last map, scaled."""

    def __init__(self, config: ConvNetConfig, *, rngs: nnx.Rngs) -> None:
        self.config = config
        first, last = config.widths
        size = (2, 2, 2)
        self.first = nnx.Conv(config.in_channels, first, size, strides=size, rngs=rngs)
        self.second = nnx.Conv(first, last, size, strides=size, rngs=rngs)
        self.gain = nnx.Param(jnp.ones(last))

    def __call__(self, x, *, key=None):
        return self.normalise(self.stages(x, key=key)[-1].mean(axis=(1, 2, 3)))

    def stages(self, x, *, key=None, visible=None):
        if visible is not None:
            raise ValueError("a ConvNet cannot leave patches out")
        one = jax.nn.relu(self.first(jnp.asarray(x)))
        return one, jax.nn.relu(self.second(one))

    def normalise(self, mean):
        return mean * self.gain[...]

    def layers_above(self, path):
        return 2 if path[0] == "first" else 1


def convert(state: Mapping[str, np.ndarray], *, partial: bool = False) -> tuple[ConvNet, Match]:
    net = ConvNet(ConvNetConfig(), rngs=nnx.Rngs(0))
    for name, parameter in parameters(net).items():
        parameter.set_value(jnp.asarray(state[f"convnet.{name}"]))
    return net, Match({name: f"convnet.{name}" for name in parameters(net)})


@pytest.fixture
def family(monkeypatch) -> None:
    ours = Family(ConvNetConfig, ConvNet, lambda state: "convnet.gain" in state, convert)
    monkeypatch.setitem(FAMILIES, "ConvNet", ours)


@pytest.fixture
def net() -> ConvNet:
    return ConvNet(ConvNetConfig(), rngs=nnx.Rngs(3))


def assert_equal(ours: Encoder, theirs: Encoder) -> None:
    assert ours.config == theirs.config
    expected = parameters(theirs)
    assert list(parameters(ours)) == list(expected)
    for name, parameter in parameters(ours).items():
        np.testing.assert_array_equal(parameter[...], expected[name][...], err_msg=name)


@pytest.mark.parametrize("encoder", [small_encoder(), ConvNet(ConvNetConfig(), rngs=nnx.Rngs(0))])
def test_what_the_protocol_promises(encoder: Encoder):
    assert isinstance(encoder, Encoder)
    assert isinstance(encoder.config, EncoderConfig)
    x, _, _ = balls(2, 0)
    config, maps, rows = encoder.config, encoder.stages(x), encoder(x)
    for features, width, stride in zip(maps, config.widths, config.total_strides, strict=True):
        assert features.shape == (2, *(side // stride for side in x.shape[1:4]), width)
    assert rows.shape == (2, config.features)
    assert rows.dtype == np.float32
    mean = maps[-1].mean(axis=(1, 2, 3))
    np.testing.assert_allclose(encoder.normalise(mean), rows, rtol=1e-5, atol=1e-6)
    flat = nnx.to_flat_state(nnx.state(encoder, nnx.Param))
    assert min(encoder.layers_above(path) for path, _ in flat) == 1


def test_a_checkpoint_names_its_family(family, net, tmp_path):
    encoders.save(tmp_path / "net", net)
    assert json.loads((tmp_path / "net/encoder.json").read_text())["family"] == "ConvNet"
    loaded = encoders.load(tmp_path / "net")
    assert type(loaded) is ConvNet
    assert_equal(loaded, net)


def test_foreign_weights_find_their_family(family, net, tmp_path):
    path = tmp_path / "weights.safetensors"
    save_file({f"convnet.{name}": np.asarray(p[...]) for name, p in parameters(net).items()}, path)
    loaded, match = load_foreign(path)
    assert match.full
    assert_equal(loaded, net)


def test_it_embeds_and_is_fine_tuned(family, net):
    x, radius, _ = balls(16, 0)
    np.testing.assert_allclose(encoders.embed(net, x, batch_size=4), net(x), rtol=1e-5, atol=1e-6)
    # The first step trains the last layer of the head alone, which starts at zero.
    settings = encoders.TrainingSettings(epochs=4, batch_size=8, layer_decay=0.5)
    tuned, history = encoders.finetune(
        net, x, radius > 4, task="classification", settings=settings, tracking=QUIET
    )
    assert np.isfinite(history.loss).all()
    assert type(tuned) is ConvNet
    before = parameters(net)
    for name, parameter in parameters(tuned).items():
        assert np.abs(parameter[...] - before[name][...]).max() > 0, name
    assert history.predict(tuned, x).shape == (16, 2)


def test_frozen_it_stays_as_it_is(family, net):
    x, radius, _ = balls(16, 0)
    settings = encoders.TrainingSettings(epochs=1, batch_size=16, freeze=True)
    tuned, _ = encoders.finetune(
        net, x, radius, task="regression", settings=settings, tracking=QUIET
    )
    assert_equal(tuned, net)


def test_layer_wise_rates_follow_from_its_layers(net):
    params = {"encoder": nnx.to_pure_dict(nnx.state(net, nnx.Param)), "head": jnp.ones(2)}
    scales = layer_scales(params, net, 0.5)
    assert set(jax.tree.leaves(scales["encoder"]["first"])) == {0.25}
    assert set(jax.tree.leaves(scales["encoder"]["second"])) == {0.5}
    assert scales["encoder"]["gain"] == 0.5
    assert scales["head"] == 1.0


def test_what_a_family_cannot_do_is_refused(family, net, tmp_path):
    x, radius, _ = balls(16, 0)
    settings = encoders.TrainingSettings(epochs=1, drop_path=0.1)
    with pytest.raises(ValueError, match="ConvNet has no drop_path"):
        encoders.finetune(net, x, radius, task="regression", settings=settings, tracking=QUIET)
    with pytest.raises(ValueError, match="cannot leave patches out"):
        encoders.pretrain(net, x, masking=encoders.MaskingSettings((8,), width=4), tracking=QUIET)
    reconfigure(net, drop_path=0.0, widths=(4, 6))
    assert net.config == ConvNetConfig()


def test_an_unknown_family_is_named(net, tmp_path):
    with pytest.raises(
        InputError, match=r"ConvNet is of no known family \(known: ConvNeXt V2, DINOv2 ViT\)"
    ):
        encoders.save(tmp_path / "net", net)
    assert not list(tmp_path.iterdir())
    encoders.save(tmp_path / "encoder", small_encoder())
    description = tmp_path / "encoder/encoder.json"
    content = json.loads(description.read_text())
    description.write_text(json.dumps(content | {"family": "ConvNet"}))
    with pytest.raises(InputError, match="family 'ConvNet' is not known"):
        encoders.load(tmp_path / "encoder")


def test_running_statistics_are_refused(monkeypatch, tmp_path):
    class Normalised(ConvNet):
        def __init__(self, config: ConvNetConfig, *, rngs: nnx.Rngs) -> None:
            super().__init__(config, rngs=rngs)
            self.batch = nnx.BatchNorm(config.features, rngs=rngs)

    monkeypatch.setitem(FAMILIES, "normalised", Family(ConvNetConfig, Normalised))
    with pytest.raises(InputError, match="variables that are no parameters"):
        encoders.save(tmp_path / "net", Normalised(ConvNetConfig(), rngs=nnx.Rngs(0)))


def test_a_checkpoint_from_before_there_were_families_is_a_convnext(tmp_path):
    encoder = small_encoder()
    encoders.save(tmp_path / "encoder", encoder)
    description = tmp_path / "encoder/encoder.json"
    content = json.loads(description.read_text())
    assert content.pop("family") == "ConvNeXt V2"
    description.write_text(json.dumps(content))
    loaded = encoders.load(tmp_path / "encoder")
    assert type(loaded) is ConvNeXtV2
    assert_equal(loaded, encoder)


def test_layers_of_a_convnext_count_from_the_head():
    config = ConvNeXtV2Config(depths=(2, 3), widths=(4, 4), strides=(2,), in_channels=1)
    encoder = ConvNeXtV2(config, rngs=nnx.Rngs(0))
    layers = {
        ("norm", "scale"): 1, ("blocks", 1, 2, "norm", "scale"): 1, ("blocks", 1, 0, "grn"): 3,
        ("downsamples", 1, "conv"): 3, ("blocks", 0, 1, "grn"): 4, ("blocks", 0, 0, "grn"): 5,
        ("downsamples", 0, "conv"): 6,
    }  # fmt: skip
    assert {path: encoder.layers_above(path) for path in layers} == layers
