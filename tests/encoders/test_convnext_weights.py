"""Every dialect of a state dict gives the same encoder, and what does not fit is named."""

from __future__ import annotations

import re
import time

import numpy as np
import pytest
from transformers import ConvNextV2Config as HubConfig
from transformers import ConvNextV2ForImageClassification

from encoders.convnext import ConvNeXtV2
from encoders.convnext_weights import convert
from encoders.encoder import parameters
from lens.errors import InputError
from tests.encoders.reference import Reference, arrays, as_sparse, as_timm, randomise


@pytest.fixture(scope="module")
def dense() -> dict[str, np.ndarray]:
    reference = Reference()
    randomise(reference)
    return arrays(reference)


@pytest.fixture(scope="module")
def dense_2d() -> dict[str, np.ndarray]:
    reference = Reference(strides=(2, 2, 2), dims=2)
    randomise(reference)
    return arrays(reference)


def assert_same(ours: ConvNeXtV2, theirs: ConvNeXtV2, *, but: tuple[str, ...] = ()) -> None:
    assert ours.config == theirs.config
    expected = parameters(theirs)
    for name, parameter in parameters(ours).items():
        if name not in but:
            np.testing.assert_array_equal(parameter[...], expected[name][...], err_msg=name)


def test_every_parameter_is_taken(dense):
    encoder, match = convert(dense)
    assert match.full
    assert set(match.matched.values()) == set(dense)
    assert set(match.matched) == set(parameters(encoder))
    assert match.ignored == ()


@pytest.mark.parametrize(
    "prefix", ["encoder.", "module.", "module.encoder.", "model.backbone.", "_orig_mod.encoder."]
)
def test_prefixes(dense, prefix):
    state = {prefix + name: array for name, array in dense.items()}
    state |= {"head.0.weight": np.zeros((256, 32)), "decode_head.conv.weight": np.zeros((4, 4))}
    encoder, match = convert(state)
    assert match.ignored == ("head.0.weight", "decode_head.conv.weight")
    assert_same(encoder, convert(dense)[0])


@pytest.fixture(scope="module")
def tiny() -> dict[str, np.ndarray]:
    reference = Reference(depths=(1,), widths=(8,), strides=())
    randomise(reference)
    return arrays(reference)


@pytest.mark.parametrize(
    "prefix",
    [
        "net.", "network.", "convnext.", "image_encoder.", "feature_extractor.", "trunk.",
        "visual.trunk.", "encoder_q.", "base_model.model.", "model.net.encoder.", "any.thing.",
    ],
)  # fmt: skip
def test_a_prefix_of_any_name_is_dropped(tiny, prefix):
    """Heads beside the encoder stay out, also where their names are those of our parts."""
    state = {prefix + name: array for name, array in tiny.items()}
    others = {"text.norm.weight": np.ones(8), "text.fc.weight": np.ones((2, 2))}
    encoder, match = convert(others | state)
    assert (match.full, match.ignored) == (True, tuple(others))
    assert_same(encoder, convert(tiny)[0])


def test_a_prefix_may_wrap_hugging_faces_names(tiny):
    """There `encoder` wraps the stages and not the stem and the last norm."""
    hub = {
        name.replace("downsample_layers.0.0", "embeddings.patch_embeddings")
        .replace("downsample_layers.0.1", "embeddings.layernorm")
        .replace("stages.0.0.", "encoder.stages.0.layers.0."): array
        for name, array in tiny.items()
    }
    for prefix in ("", "convnextv2.", "vision.tower."):
        encoder, match = convert({prefix + name: array for name, array in hub.items()})
        assert match.full
        assert_same(encoder, convert(tiny)[0])


def test_several_encoders_are_told_apart_or_named(tiny):
    doubled = {name: 2 * array for name, array in tiny.items()}

    def two(first: str, second: str) -> dict[str, np.ndarray]:
        return {first + n: a for n, a in tiny.items()} | {second + n: a for n, a in doubled.items()}

    for first, second in (
        ("encoder.", "decoder."), ("encoder_q.", "encoder_k."), ("online.", "target."),
        ("model.", "ema_model."), ("net.encoder.", "net.aux.encoder."),
    ):  # fmt: skip
        encoder, match = convert(two(first, second))
        assert match.others == (second.rstrip("."),)
        assert_same(encoder, convert(tiny)[0])
    with pytest.raises(InputError, match=r"2 encoders in it, under left\., right\.; keep one"):
        convert(two("left.", "right."))


def test_names_of_networks_for_features_only(tiny):
    """timm's `features_only` joins part and number by an underscore, and has no last norm."""
    state = {re.sub(r"^(stem|stages)\.", r"\1_", n): a for n, a in as_timm(tiny).items()}
    assert any(name.startswith("stages_0.blocks.0.") for name in state)
    assert_same(convert(state)[0], convert(tiny)[0])
    with pytest.raises(InputError, match=r"2 missing: norm\.bias, norm\.scale.*--partial"):
        convert({n: a for n, a in state.items() if not n.startswith("head.norm")})


@pytest.mark.parametrize("index", ["999999999", "9" * 5000, "1000", "-1", "٣"])
@pytest.mark.parametrize("name", ["stages.{}.0.dwconv.weight", "stages.0.{}.dwconv.weight"])
def test_an_absurd_index_is_refused_at_once(tiny, name, index):
    start = time.process_time()
    name = name.format(index)
    with pytest.raises(InputError, match="1 unexpected: stages"):
        convert(tiny | {name: np.ones((8, 1, 7, 7, 7), np.float32)})
    assert time.process_time() - start < 10
    with pytest.raises(InputError, match=r"no ConvNeXt V2.* encoder in it"):
        convert({name: np.ones((8, 1, 7, 7, 7), np.float32)})


@pytest.mark.parametrize("name", ["stages.999.0.dwconv.weight", "stages.0.999.dwconv.weight"])
def test_a_large_index_is_refused_at_once(tiny, name):
    start = time.process_time()
    with pytest.raises(InputError, match=r"is missing|from 1 to 256, not 1000"):
        convert(tiny | {name: np.ones((8, 1, 7, 7, 7), np.float32)})
    assert time.process_time() - start < 10


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("prefix", ["", "encoder."])
def test_sparse_form_is_the_dense_encoder(dense, dense_2d, dims, prefix):
    state = dense if dims == 3 else dense_2d
    encoder, match = convert(as_sparse(state, prefix))
    assert match.full
    assert match.defaulted == ("norm.bias", "norm.scale")
    assert {"mask_token", "proj.weight", "pred.bias"} <= set(match.ignored)
    assert_same(encoder, convert(state)[0], but=("norm.bias", "norm.scale"))
    np.testing.assert_array_equal(encoder.norm.scale[...], 1)


@pytest.mark.parametrize("conv_mlp", [False, True])
def test_timm_names(dense_2d, conv_mlp):
    encoder, match = convert(as_timm(dense_2d, conv_mlp=conv_mlp))
    assert match.ignored == ("head.fc.weight",)
    assert_same(encoder, convert(dense_2d)[0])


def test_hugging_face_classifier():
    model = ConvNextV2ForImageClassification(
        HubConfig(hidden_sizes=[8, 16, 24, 32], depths=[1, 2, 1, 1])
    )
    _, match = convert(arrays(model))
    assert match.full
    assert set(match.ignored) == {"classifier.weight", "classifier.bias"}


def test_half_precision_is_widened(dense):
    encoder, _ = convert({name: array.astype(np.float16) for name, array in dense.items()})
    assert all(p.dtype == np.float32 for p in parameters(encoder).values())


def test_of_teacher_and_student_the_teacher_is_taken(dense):
    """Also where only the names tell them apart, and whichever comes first."""
    student = {f"student.backbone.{name}": 2 * array for name, array in dense.items()}
    teacher = {f"teacher.backbone.{name}": array for name, array in dense.items()}
    encoder, match = convert(student | teacher)
    assert match.full
    assert set(match.ignored) == set(student)
    assert_same(encoder, convert(dense)[0])
    assert_same(convert(student)[0], convert(student | {"head.weight": np.ones((2, 2))})[0])


def without(state: dict[str, np.ndarray], *names: str) -> dict[str, np.ndarray]:
    return {name: array for name, array in state.items() if name not in names}


def test_partial(dense):
    """What is missing is named; with `partial` it keeps its initialisation."""
    state = without(dense, "norm.weight", "stages.1.0.grn.gamma")
    with pytest.raises(InputError, match=r"2 missing: blocks\.1\.0\.grn\.gamma, norm\.scale"):
        convert(state)
    encoder, match = convert(state, partial=True)
    assert match.missing == ("blocks.1.0.grn.gamma", "norm.scale")
    np.testing.assert_array_equal(encoder.norm.scale[...], 1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"stages.0.0.gamma": np.ones(8)}, "1 unexpected: stages.0.0.gamma"),
        ({"stages.0.0.pwconv1.weight": np.ones((31, 8))}, "1 mismatched: stages.0.0.pwconv1"),
        ({"stages.0.0.norm.bias": np.full(8, np.nan)}, "not finite"),
        ({"stages.0.0.dwconv.weight": np.ones((8, 1, 5, 5, 5))}, "expected 7"),
        ({"encoder.norm.bias": np.ones(32)}, "both norm.bias and encoder.norm.bias"),
        ({"stages.0.0.norm.weight": np.ones(())}, "describe no|mismatched"),
    ],
)
def test_what_does_not_fit_is_refused(dense, change, message):
    with pytest.raises(InputError, match=message):
        convert(dense | change)


def test_a_file_without_an_encoder_is_refused():
    with pytest.raises(InputError, match=r"no ConvNeXt V2.* encoder"):
        convert({"fc.weight": np.ones((2, 2), np.float32)})
