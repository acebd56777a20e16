"""Low-rank updates: what they compute, what they train, and that nothing of them is left."""

from __future__ import annotations

from dataclasses import replace
from math import prod

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx

import encoders
from encoders.convnext import ConvNeXtV2, ConvNeXtV2Config
from encoders.encoder import encoder_hash, parameters
from encoders.finetuning import finetune
from encoders.lora import LowRank, adapt, merge, problem
from encoders.settings import TrainingSettings
from encoders.steps import Learner, start
from encoders.training import Tracking, train
from encoders.vit import ViT, ViTConfig
from encoders.vit_weights import convert
from lens.errors import InputError
from tests.encoders.planted import balls
from tests.encoders.reference_vit import arrays, as_published, reference
from tests.encoders.test_training import Killed, assert_same_run

RANK, ALPHA = 3, 6.0
SETTINGS = TrainingSettings(
    epochs=3, batch_size=16, learning_rate=1e-2, lora=RANK, lora_alpha=ALPHA, layer_decay=0.9,
    drop_path=0.1,
)  # fmt: skip
QUIET = Tracking(progress=False)


def convnext(dims: int) -> ConvNeXtV2:
    """With response norms at work, which start at zero."""
    layout = ConvNeXtV2Config(dims=dims, depths=(1, 2), widths=(8, 16), strides=(2,), in_channels=1)
    encoder = ConvNeXtV2(layout, rngs=nnx.Rngs(0), stem_bias=0.3)
    for stage in encoder.blocks:
        for block in stage:
            block.grn.gamma.set_value(0.5 + block.grn.gamma[...])
    return encoder


def vit(**changes) -> ViT:
    layout = {"depth": 2, "width": 16, "heads": 2, "hidden": 24, "patch": 4, "grid": (4, 4)}
    return ViT(ViTConfig(**(layout | {"in_channels": 1} | changes)), rngs=nnx.Rngs(0))


KINDS = {
    "volumes": lambda: convnext(3),
    "images": lambda: convnext(2),
    "vit": vit,
    "swiglu": lambda: vit(perceptron="swiglu"),
}
ADAPTED = {
    "volumes": {"expand", "project"},
    "images": {"expand", "project"},
    "vit": {"attention.qkv", "attention.out", "perceptron.expand", "perceptron.project"},
}


@pytest.fixture(params=KINDS)
def kind(request) -> str:
    return request.param


def inputs(kind: str) -> np.ndarray:
    shape = (4, 16, 16, 16, 1) if kind == "volumes" else (4, 16, 16, 1)
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def adapted(kind: str):
    """An encoder whose updates are not zero."""
    encoder = KINDS[kind]()
    adapt(encoder, RANK, ALPHA, seed=0)
    rng = np.random.default_rng(1)
    for name, parameter in parameters(encoder).items():
        if name.endswith("lora_b"):
            parameter.set_value(jnp.asarray(0.1 * rng.normal(size=parameter.shape), jnp.float32))
    return encoder


def test_the_start_is_the_encoder_itself(kind):
    encoder, other = KINDS[kind](), KINDS[kind]()
    adapt(other, RANK, ALPHA, seed=0)
    x = inputs(kind)
    np.testing.assert_array_equal(other(x), encoder(x))
    for ours, theirs in zip(other.stages(x), encoder.stages(x), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    merge(other)
    assert encoder_hash(other) == encoder_hash(encoder)


def test_merging_is_the_formula_and_leaves_an_ordinary_encoder(kind):
    """W + (alpha / r) A B in double precision, and every other number as it was."""
    encoder, other = KINDS[kind](), adapted(kind)
    factors = {name: np.array(p[...], np.float64) for name, p in parameters(other).items()}
    x = inputs(kind)
    unmerged = np.asarray(other(x))
    merge(other)
    before, after = parameters(encoder), parameters(other)
    assert list(after) == list(before)
    assert not any(isinstance(module, LowRank) for _, module in nnx.iter_modules(other))
    moved = set()
    for name, parameter in before.items():
        expected = np.array(parameter[...], np.float64)
        layer = name.removesuffix(".kernel")
        if name != layer and f"{layer}.lora.lora_a" in factors:
            a, b = (factors[f"{layer}.lora.lora_{which}"] for which in "ab")
            assert a.shape == (expected.shape[0], RANK)
            assert b.shape == (RANK, expected.shape[1])
            expected += ALPHA / RANK * a @ b
            # Half a unit in the last place of sums below 1, and of their terms.
            np.testing.assert_allclose(after[name][...], expected, rtol=0, atol=2e-7, err_msg=name)
            moved.add(layer)
        else:
            np.testing.assert_array_equal(after[name][...], expected, err_msg=name)
    blocks = {name.rsplit(".", 2)[0] for name in before if name.startswith("blocks.")}
    ends = ADAPTED.get(kind, ADAPTED["vit"])
    prefixes = {name[: -len(end) - 1] for name in moved for end in ends if name.endswith(end)}
    assert moved == {f"{prefix}.{end}" for prefix in prefixes for end in ends}
    assert len(moved) == len(ends) * len(prefixes) > 0 == len(prefixes - _heads(blocks))
    merged = np.asarray(other(x))
    assert np.abs(merged - np.asarray(encoder(x))).max() > 0.01
    worst = np.abs(merged - unmerged).max() / np.abs(unmerged).max()
    assert worst < 1e-6


def _heads(names: set[str]) -> set[str]:
    """Each name and all that it begins with, by parts."""
    return {name.rsplit(".", cut)[0] for name in names for cut in range(3)}


@pytest.mark.parametrize("kind", ["volumes", "vit"])
def test_only_factors_and_head_are_trained_and_have_moments(kind):
    encoder = KINDS[kind]()
    model = Read(encoder)
    _, state = start(model, SETTINGS)
    shapes = [p.shape for n, p in parameters(encoder).items() if _is_adapted(n, p.shape)]
    factors = sum(RANK * (inputs + outputs) for inputs, outputs in shapes)
    head = model.read[...].size
    whole = sum(prod(p.shape) for p in parameters(encoder).values())
    assert _numbers(state.params) == factors + head
    # AdamW keeps two moments of each, and counts its steps.
    assert _numbers(state.optimiser) == 2 * (factors + head) + 1
    assert _numbers(state.rest) == whole
    _, full = start(model, replace(SETTINGS, lora=None, lora_alpha=None))
    assert _numbers(full.optimiser) == 2 * (whole + head) + 1


def _is_adapted(name: str, shape: tuple[int, ...]) -> bool:
    return name.startswith("blocks.") and name.endswith(".kernel") and len(shape) == 2


def _numbers(tree) -> int:
    return sum(np.size(leaf) for leaf in jax.tree.leaves(tree))


class Read(Learner):
    """The squared error of a linear reader of the embedding."""

    def __init__(self, encoder) -> None:
        self.encoder = encoder
        rng = np.random.default_rng(2)
        read = rng.normal(size=encoder.config.features).astype(np.float32)
        self.read = nnx.Param(jnp.asarray(read))

    def losses(self, batch, key, *, training):
        return jnp.square(self.encoder(batch["volumes"]) @ self.read[...] - batch["targets"])


def test_steps_are_those_of_torch():
    """Three AdamW steps of DINOv2 against PyTorch's own gradients and optimiser.

    There the kernels are ``W + (alpha / r) B A`` as PEFT writes it, with the factors transposed.
    """
    model = reference(num_hidden_layers=2, image_size=28)
    encoder, _ = convert(as_published(arrays(model)), facts={"num_attention_heads": 3})
    rng = np.random.default_rng(3)
    x = rng.normal(size=(4, 28, 28, 3)).astype(np.float32)
    y = rng.normal(size=4).astype(np.float32)
    settings = TrainingSettings(
        epochs=3, batch_size=4, learning_rate=3e-3, weight_decay=0.05, warm_up=0.0, lora=RANK,
        lora_alpha=ALPHA, seed=5,
    )  # fmt: skip
    learner = Read(encoder)
    data = {"volumes": x, "targets": y}
    _, last, curves = train(
        learner, data, settings, order=lambda epoch: np.arange(4), tracking=QUIET
    )
    losses, weights = _torch_steps(model, learner, x, y, curves.rate)
    np.testing.assert_allclose(curves.step_loss, losses, rtol=1e-4)
    assert losses[-1] < 0.9 * losses[0]
    found = parameters(last.encoder)
    for name, weight in weights.items():
        start, end = (np.asarray(each[name][...]) for each in (parameters(encoder), found))
        # AdamW divides each gradient by its size: where that is next to nothing, rounding decides.
        apart, moved = np.linalg.norm(end - weight), np.linalg.norm(end - start)
        assert apart < 0.01 * moved, name
        assert moved > 0.01, name


def _torch_steps(model, learner: Read, x, y, rates):
    """Losses of the steps, and kernels by our names after them."""
    twin = nnx.clone(learner.encoder)
    adapt(twin, RANK, ALPHA, seed=5)
    factors = {
        name: torch.tensor(np.asarray(p[...]).T.copy(), requires_grad=True)
        for name, p in parameters(twin).items()
        if ".lora." in name
    }
    read = torch.tensor(np.asarray(learner.read[...]).copy(), requires_grad=True)
    decayed = torch.optim.AdamW(list(factors.values()), weight_decay=0.05)
    plain = torch.optim.AdamW([read], weight_decay=0.0)
    images = torch.from_numpy(np.moveaxis(x, -1, 1).copy())
    losses = []
    for rate in rates:
        weights = _torch_weights(model, factors)
        out = torch.func.functional_call(model, weights, (images,)).last_hidden_state[:, 0]
        loss = ((out @ read - torch.from_numpy(y)) ** 2).mean()
        losses.append(float(loss.detach()))
        for optimiser in (decayed, plain):
            optimiser.param_groups[0]["lr"] = float(rate)
            optimiser.zero_grad()
        loss.backward()
        for optimiser in (decayed, plain):
            optimiser.step()
    with torch.no_grad():
        weights = {k: v.numpy() for k, v in _torch_weights(model, factors).items()}
    kernels = {}
    for block in range(2):
        names = _torch_names(block)
        for ours, theirs in names.items():
            kernels[f"{ours}.kernel"] = np.concatenate([weights[n].T for n in theirs], axis=1)
    return losses, kernels


def _torch_names(block: int) -> dict[str, list[str]]:
    """Our layer -> weights of Hugging Face, side by side in ours."""
    own = f"blocks.{block}"
    return {
        f"{own}.attention.qkv": [f"encoder.layer.{block}.attention.{n}_proj.weight" for n in "qkv"],
        f"{own}.attention.out": [f"encoder.layer.{block}.attention.o_proj.weight"],
        f"{own}.perceptron.expand": [f"encoder.layer.{block}.mlp.fc1.weight"],
        f"{own}.perceptron.project": [f"encoder.layer.{block}.mlp.fc2.weight"],
    }


def _torch_weights(model, factors):
    start, weights = dict(model.named_parameters()), {}
    for block in range(2):
        for ours, theirs in _torch_names(block).items():
            a, b = (factors[f"{ours}.lora.lora_{which}"] for which in "ab")
            for name, part in zip(theirs, b.chunk(len(theirs)), strict=True):
                weights[name] = start[name].detach() + ALPHA / RANK * part @ a
    return weights


@pytest.fixture(scope="module")
def data():
    return balls(40, 0)


RUN = {
    "task": "regression",
    "train_rows": np.arange(32),
    "val_rows": np.arange(32, 40),
    "settings": SETTINGS,
}


@pytest.fixture(scope="module")
def tuned(data):
    return finetune(convnext(3), data[0], data[1], **RUN, tracking=QUIET)


def test_what_is_not_adapted_stays_and_the_update_is_of_the_rank(data, tuned):
    encoder, history = tuned
    begun = convnext(3)
    assert history.curves.best < history.curves.start
    assert encoder.config == begun.config
    for each in (encoder, history.last[0]):
        found = parameters(each)
        assert list(found) == list(parameters(begun))
        for name, parameter in parameters(begun).items():
            change = np.asarray(found[name][...], np.float64) - np.asarray(parameter[...])
            if _is_adapted(name, parameter.shape):
                sizes = np.linalg.svd(change, compute_uv=False)
                assert sizes[0] > 1e-4, name
                # What is left is the rounding of the kernels.
                assert (sizes[RANK:] < 1e-5 * max(1, sizes[0])).all(), name
            else:
                assert not change.any(), name


def test_the_encoder_that_is_returned_gives_the_scores_of_the_training(data, tuned):
    """Those of validation were taken before the updates were merged."""
    encoder, history = tuned
    rows = RUN["val_rows"]
    guessed = history.predict(encoder, data[0], rows)
    score = np.square((guessed - data[1][rows]) / history.label_sd).mean()
    np.testing.assert_allclose(score, history.curves.best, rtol=1e-5)


def test_it_is_saved_and_read_as_any_other(data, tuned, tmp_path):
    encoders.save(tmp_path / "tuned", tuned[0])
    again = encoders.load(tmp_path / "tuned")
    assert type(again) is ConvNeXtV2
    assert encoder_hash(again) == encoder_hash(tuned[0])
    np.testing.assert_array_equal(
        encoders.embed(again, data[0][:2]), encoders.embed(tuned[0], data[0][:2])
    )


def test_an_interrupted_training_goes_on(data, tuned, tmp_path):
    def stop(curves):
        if len(curves.loss) == 2:
            raise Killed

    tracking = Tracking(tmp_path / "run", progress=False)
    with pytest.raises(Killed):
        finetune(convnext(3), data[0], data[1], **RUN, tracking=replace(tracking, observe=stop))
    seen = []
    tracking = replace(tracking, observe=seen.append)
    assert_same_run(finetune(convnext(3), data[0], data[1], **RUN, tracking=tracking), tuned)
    assert len(seen) == 1
    other = RUN | {"settings": replace(SETTINGS, lora_alpha=1.0)}
    with pytest.raises(InputError, match=r"settings.lora_alpha 6.0 there, 1.0 now"):
        finetune(convnext(3), data[0], data[1], **other, tracking=tracking)


def test_in_bfloat16_with_recomputed_blocks(data):
    x, radius, _ = data
    layout = ConvNeXtV2Config(
        depths=(1, 1), widths=(8, 16), strides=(2,), in_channels=1, dtype="bfloat16", remat=True
    )
    encoder = ConvNeXtV2(layout, rngs=nnx.Rngs(0), stem_bias=0.3)
    settings = replace(SETTINGS, epochs=1)
    last = finetune(
        encoder, x, radius > 4, task="classification", settings=settings, tracking=QUIET
    )[0]
    found, before = parameters(last), parameters(encoder)
    assert {n for n in before if np.any(found[n][...] != before[n][...])} == {
        n for n, p in before.items() if _is_adapted(n, p.shape)
    }


def test_what_cannot_be_is_refused():
    assert problem(convnext(3), 8) == ""
    with pytest.raises(ValueError, match=r"^lora is 9; at most 8 .* \(8 to 32 channels\)"):
        adapt(convnext(3), 9, 1.0, 0)
    x, radius, _ = balls(4, 0)
    with pytest.raises(ValueError, match=r"^lora is 9; at most 8"):
        finetune(convnext(3), x, radius, task="regression", settings=TrainingSettings(lora=9))
    assert problem(nnx.LayerNorm(3, rngs=nnx.Rngs(0)), 1).endswith("no linear layers to adapt")
    for changes, message in (
        ({"lora": 0}, "lora is 0; at least 1"),
        ({"lora": -1}, "lora is -1; at least 1"),
        ({"lora": 2, "lora_alpha": 0.0}, "lora_alpha is 0.0; more than 0"),
        ({"lora": 2, "freeze": True}, "lora is 2, which trains the encoder, and freeze"),
        ({"lora_alpha": 2.0}, "lora_alpha is 2.0, and there is no rank"),
    ):
        with pytest.raises(ValueError, match=f"^{message}"):
            TrainingSettings(**changes)
    assert TrainingSettings(lora=4).alpha == 4
    assert TrainingSettings(lora=4, lora_alpha=8.0).alpha == 8
