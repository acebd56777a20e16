"""The loop repeats and resumes itself exactly, on any number of devices."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from encoders import steps
from encoders.encoder import encoder_hash, parameters
from encoders.finetuning import finetune
from encoders.heads import RegressionHead
from encoders.sampling import balanced_order, plain_order
from encoders.settings import TrainingSettings
from encoders.steps import layer_scales
from encoders.tasks import Regressor
from encoders.training import Tracking
from lens.errors import InputError
from tests.encoders.planted import balls, small_encoder

TRAIN, VAL = np.arange(48), np.arange(48, 64)
# One graph and one recipe throughout, so that the step is compiled once.
SETTINGS = TrainingSettings(epochs=4, batch_size=16, learning_rate=3e-3, drop_path=0.1)
RUN = {
    "task": "regression",
    "train_rows": TRAIN,
    "val_rows": VAL,
    "tracking": Tracking(progress=False),
}


@pytest.fixture(scope="module")
def data():
    return balls(64, 0)


@pytest.fixture(scope="module")
def whole(data):
    """An uninterrupted run."""
    return finetune(small_encoder(), data[0], data[1], settings=SETTINGS, **RUN)


def assert_same_run(one, other) -> None:
    np.testing.assert_array_equal(one[1].curves.step_loss, other[1].curves.step_loss)
    np.testing.assert_array_equal(one[1].curves.validation, other[1].curves.validation)
    assert one[1].curves.start == other[1].curves.start
    assert one[1].curves.best_epoch == other[1].curves.best_epoch
    for ours, theirs in (
        (one[0], other[0]),
        (one[1].head, other[1].head),
        (one[1].last[0], other[1].last[0]),
    ):
        expected = dict(nnx.to_flat_state(nnx.state(theirs)))
        for name, value in nnx.to_flat_state(nnx.state(ours)):
            np.testing.assert_array_equal(value[...], expected[name][...], err_msg=str(name))


def test_repeats_itself_and_leaves_the_original(data, whole):
    encoder = small_encoder()
    before = {name: np.array(p[...]) for name, p in parameters(encoder).items()}
    again = finetune(encoder, data[0], data[1], settings=SETTINGS, **RUN)
    assert_same_run(again, whole)
    for name, parameter in parameters(encoder).items():
        np.testing.assert_array_equal(parameter[...], before[name], err_msg=name)
    assert again[0].config == encoder.config
    other = finetune(encoder, data[0], data[1], settings=replace(SETTINGS, seed=1), **RUN)
    assert not np.array_equal(other[1].loss, whole[1].loss)


class Killed(Exception):
    pass


@pytest.mark.parametrize(("every", "last", "next_epoch"), [(None, 1, 2), (2, 2, 2)])
def test_resumes_to_the_same_run(data, whole, tmp_path, every, last, next_epoch):
    """Stopped at the end of an epoch of three steps; the last checkpoint is of then, or of a step
    in its middle, so that part of the epoch is done again."""

    def stop(curves):
        if len(curves.loss) == last + 1:
            raise Killed

    run = {**RUN, "settings": SETTINGS}
    tracking = Tracking(tmp_path / "run", every, progress=False)
    with pytest.raises(Killed):
        finetune(
            small_encoder(), data[0], data[1], **run | {"tracking": replace(tracking, observe=stop)}
        )
    seen = []
    run["tracking"] = replace(tracking, observe=seen.append)
    resumed = finetune(small_encoder(), data[0], data[1], **run)
    assert_same_run(resumed, whole)
    # What is done is not done again.
    assert [len(curves.loss) for curves in seen] == list(range(next_epoch + 1, 5))
    finished = finetune(small_encoder(), data[0], data[1], **run)
    assert_same_run(finished, whole)
    assert len(seen) == 4 - next_epoch


def test_another_run_is_not_continued(data, whole, tmp_path):
    x, radius, _ = data
    short = replace(SETTINGS, epochs=1)
    run = RUN | {"tracking": Tracking(tmp_path / "run", progress=False)}
    finetune(small_encoder(), x, radius, settings=short, **run)
    with pytest.raises(InputError, match=r"another run \(settings.epochs 1 there, 4 now"):
        finetune(small_encoder(), x, radius, settings=SETTINGS, **run)
    with pytest.raises(InputError, match=r"another run \(labels"):
        finetune(small_encoder(), x, radius**2, settings=short, **run)
    with pytest.raises(InputError, match=r"another run \(volumes"):
        finetune(small_encoder(), x * 1.001, radius, settings=short, **run)
    for file in (tmp_path / "run").rglob("*"):
        if file.is_file() and file.stat().st_size > 100:
            file.write_bytes(file.read_bytes()[:50])
    with pytest.raises(InputError, match="cannot be read"):
        finetune(small_encoder(), x, radius, settings=short, **run)


def test_best_epoch_is_the_one_returned(data, whole):
    encoder, history = whole
    scores = []
    for trained, head in ((encoder, history.head), history.last):
        guessed = replace(history, head=head).predict(trained, data[0], VAL)
        scores.append(np.square((guessed - data[1][VAL]) / history.label_sd).mean())
    curve = history.curves.validation
    assert history.curves.best_epoch == curve.argmin()
    assert history.curves.best == curve.min() < history.curves.start
    np.testing.assert_allclose(scores, [curve.min(), curve[-1]], rtol=1e-5)


@pytest.fixture(scope="module")
def harmful(data):
    """Labels whose relation to the volumes is turned round in validation: all learning harms."""
    labels = data[1].copy()
    labels[VAL] = 2 * labels[TRAIN].mean() - labels[VAL]
    return labels


@pytest.mark.parametrize("freeze", [False, True])
def test_where_every_epoch_harms_the_start_is_returned(data, harmful, freeze):
    start = small_encoder()
    settings = replace(SETTINGS, freeze=freeze)
    tuned, history = finetune(start, data[0], harmful, settings=settings, **RUN)
    curves = history.curves
    # The head starts at zero, so the loss of the start is that of saying the training mean.
    said = np.square((harmful[VAL] - history.label_mean) / history.label_sd).mean()
    assert curves.start == curves.best == pytest.approx(said, rel=1e-5)
    assert (curves.validation > curves.start).all()
    assert curves.best_epoch == -1
    assert encoder_hash(tuned) == encoder_hash(start)
    np.testing.assert_allclose(history.predict(tuned, data[0], VAL), history.label_mean, rtol=1e-6)
    last, head = history.last
    assert (encoder_hash(last) == encoder_hash(start)) == freeze
    guessed = replace(history, head=head).predict(last, data[0], VAL)
    assert np.std(guessed) > 0


def test_the_start_stays_the_best_over_an_interruption(data, harmful, tmp_path):
    def stop(curves):
        raise Killed

    tracking = Tracking(tmp_path / "run", progress=False)
    run = RUN | {"tracking": replace(tracking, observe=stop)}
    with pytest.raises(Killed):
        finetune(small_encoder(), data[0], harmful, settings=SETTINGS, **run)
    run["tracking"] = tracking
    resumed = finetune(small_encoder(), data[0], harmful, settings=SETTINGS, **run)
    whole = finetune(small_encoder(), data[0], harmful, settings=SETTINGS, **RUN)
    assert resumed[1].curves.best_epoch == -1
    assert_same_run(resumed, whole)


def test_without_validation_or_a_finite_one_the_last_epoch_is_returned(data):
    run = RUN | {"val_rows": None}
    tuned, history = finetune(small_encoder(), data[0], data[1], settings=SETTINGS, **run)
    assert np.isnan([history.curves.start, history.curves.best]).all()
    assert history.curves.best_epoch == SETTINGS.epochs - 1
    assert encoder_hash(tuned) == encoder_hash(history.last[0])
    x = data[0].copy()
    x[VAL[0]] = np.nan
    _, history = finetune(small_encoder(), x, data[1], settings=SETTINGS, **RUN)
    assert history.curves.best_epoch == SETTINGS.epochs - 1


def test_devices_share_the_batch(whole, tmp_path):
    """Eight devices give the losses of one, to the rounding that twelve steps amplify."""
    script = """
import json, sys
import jax
from encoders.finetuning import finetune
from encoders.steps import shardings
from tests.encoders.planted import balls, small_encoder
from tests.encoders.test_training import RUN, SETTINGS
x, radius, _ = balls(64, 0)
_, history = finetune(small_encoder(), x, radius, settings=SETTINGS, **RUN)
used = [shardings(size)[1].mesh.size for size in (16, 12, 7, 9)]
print(json.dumps([jax.device_count(), used, history.curves.step_loss.tolist()]))
"""
    flags = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
    out = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True,
        env=os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"},
    )  # fmt: skip
    assert out.returncode == 0, out.stderr
    devices, used, losses = json.loads(out.stdout.splitlines()[-1])
    assert devices == 8
    assert used == [8, 6, 7, 3]
    np.testing.assert_allclose(losses, whole[1].curves.step_loss, rtol=2e-3)
    # The first step is before any update.
    np.testing.assert_allclose(losses[0], whole[1].curves.step_loss[0], rtol=1e-5)


def test_a_frozen_encoder_stays_as_it_is(data):
    encoder = small_encoder()
    frozen = replace(SETTINGS, freeze=True, epochs=12)
    tuned, history = finetune(encoder, data[0], data[1], settings=frozen, **RUN)
    for name, parameter in parameters(tuned).items():
        np.testing.assert_array_equal(parameter[...], parameters(encoder)[name][...], err_msg=name)
    assert history.loss[-1] < 0.9 * history.loss[0]


def test_layer_decay_scales_the_first_update(data):
    """AdamW's first update is the rate times a sign-like step; a power of two scales it exactly.

    The head starts at zero, so the first step moves it alone and the second is the encoder's first;
    without decay of weights, which would move the encoder before that. The third has rate zero.
    """
    x, radius, _ = data
    steps = replace(SETTINGS, epochs=3, weight_decay=0.0)
    run = {**RUN, "train_rows": TRAIN[:16], "val_rows": None}
    start = small_encoder()
    moved = {}
    for decay in (1.0, 0.5):
        tuned, _ = finetune(start, x, radius, settings=replace(steps, layer_decay=decay), **run)
        moved[decay] = {
            name: np.asarray(p[...]) - np.asarray(parameters(start)[name][...])
            for name, p in parameters(tuned).items()
        }
    # Two blocks: the stem three layers below the head, the first block two, the rest one.
    expected = {"downsamples.0": 3, "blocks.0": 2, "downsamples.1": 1, "blocks.1": 1, "norm": 1}
    seen = 0
    for name, full in moved[1.0].items():
        layer = next(count for prefix, count in expected.items() if name.startswith(prefix))
        # Differences of float32 parameters near 1 round at 1e-7.
        np.testing.assert_allclose(moved[0.5][name], full * 0.5**layer, atol=3e-7, err_msg=name)
        seen += np.abs(full).max() > 1e-4
    assert seen > 5
    scales = layer_scales({"head": jnp.ones(2), "encoder": {"norm": jnp.ones(1)}}, start, 0.5)
    assert scales["head"] == 1.0


def test_balanced_order():
    targets = np.repeat([0, 1, 2], [40, 9, 1])
    order = balanced_order(targets, 60, 0)
    np.testing.assert_array_equal(np.bincount(targets[order]), [20, 20, 20])
    # Members of a class come equally often, to within one.
    counts = np.bincount(order, minlength=50)
    assert np.ptp(counts[:40]) <= 1
    assert np.ptp(counts[40:49]) <= 1
    plain = plain_order(50, 48, 0)
    assert len(np.unique(plain)) == 48
    assert not np.array_equal(plain, plain_order(50, 48, 1))


@pytest.mark.parametrize(
    ("labels", "task", "message"),
    [
        (np.array([1, 1, 1, 1]), "classification", "same class"),
        (np.array([1.0, 1.0, 1.0, 1.0]), "regression", "same label"),
        (np.array([1.0, np.nan, 2.0, 3.0]), "regression", "not finite"),
        (np.array([1, 2]), "classification", "2 labels for 4 volumes"),
    ],
)
def test_labels_that_cannot_be_learnt(labels, task, message):
    x = np.zeros((4, 16, 16, 16, 1), np.float32)
    with pytest.raises(ValueError, match=message):
        finetune(small_encoder(), x, labels, task=task, settings=SETTINGS)


def test_a_loss_that_is_not_finite_stops_the_run(data):
    x = data[0].copy()
    x[5] = np.nan
    with pytest.raises(InputError, match="not finite at step"):
        finetune(small_encoder(), x, data[1], settings=SETTINGS, **RUN)


def test_a_step_is_compiled_once_in_two_parts_and_free_memory_given_back_around_each(
    data, monkeypatch: pytest.MonkeyPatch
) -> None:
    events, found = [], []

    def listen(event: str, _seconds: float, **_: object) -> None:
        if event.endswith("backend_compile_duration"):
            events.append("compiled")

    monkeypatch.setattr(steps, "give_back_memory", lambda: events.append("given back"))
    settings = TrainingSettings(epochs=1, batch_size=8, weight_decay=0.0123, drop_path=0.0)
    encoder = small_encoder()
    model = Regressor(encoder, RegressionHead(encoder.config.features, rngs=nnx.Rngs(0)))
    for _ in range(2):
        graph, state = steps.start(model, settings)
        step = steps.compiled(graph, settings)
        batch = {"volumes": jnp.asarray(data[0][:8]), "targets": jnp.asarray(data[1][:8])}
        key, rate = jax.random.key(0), jnp.float32(1e-3)
        events.clear()
        jax.monitoring.register_event_duration_secs_listener(listen)
        for _ in range(2):
            state, _ = step(state, batch, key, rate)
        jax.monitoring.unregister_event_duration_listener(listen)
        found.append([*events])
    assert found == [["given back", "compiled", "given back"] * 2, []]


@pytest.mark.parametrize("freeze", [False, True])
def test_the_parts_of_a_step_do_what_one_program_does(data, freeze: bool) -> None:
    """Which accelerators run; what a step leaves as it is, it does not copy."""
    settings = replace(SETTINGS, freeze=freeze, drop_path=0.0 if freeze else 0.2)
    encoder = small_encoder()
    model = Regressor(encoder, RegressionHead(encoder.config.features, rngs=nnx.Rngs(0)))
    batch = {"volumes": jnp.asarray(data[0][:8]), "targets": jnp.asarray(data[1][:8])}
    given = batch, jax.random.key(0), jnp.float32(1e-3)

    def made(step_of) -> tuple[steps.State, list[float]]:
        graph, state = steps.start(model, settings)
        step, losses = step_of(graph, settings), []
        frozen = places(state)
        for _ in range(3):
            state, loss = step(state, *given)
            losses.append(float(loss))
        assert not freeze or frozen == places(state)
        return state, losses

    def places(state: steps.State) -> list[int]:
        encoder = nnx.filter_state(state.rest, nnx.PathContains("encoder"))
        return [leaf.unsafe_buffer_pointer() for leaf in jax.tree.leaves(encoder)]

    (parts, found), (one, expected) = made(steps.compiled), made(steps.whole)
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-6), parts, one)
    assert int(parts.step) == 3
