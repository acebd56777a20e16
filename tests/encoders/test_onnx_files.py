"""ONNX files, written by the library that people use, through ONNX Runtime."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from encoders.onnx_files import open_onnx
from encoders.source_names import check_output_name
from encoders.sources import content_hash
from lens.errors import InputError

X = np.random.default_rng(0).normal(size=(3, 4, 8, 8, 2)).astype(np.float32)


def model(
    path: Path, shape: list[Any], outputs: tuple[str, ...] = ("maps", "mean"), **options: Any
) -> Any:
    """A 1x1 convolution to four channels, and its mean over space."""
    import onnx

    helper, axes = onnx.helper, len(shape) - 2
    kernel = np.random.default_rng(1).normal(size=(4, 2, *[1] * axes)).astype(np.float32)
    nodes = [helper.make_node("Conv", ["x", "w"], ["maps"])]
    last = shape[-1] == 2
    if last:
        order = [0, axes + 1, *range(1, axes + 1)]
        nodes.insert(0, helper.make_node("Transpose", ["x"], ["first"], perm=order))
        nodes[1].input[0] = "first"
    nodes.append(helper.make_node("GlobalAveragePool", ["maps"], ["pooled"]))
    nodes.append(helper.make_node("Flatten", ["pooled"], ["mean"]))
    kind = onnx.TensorProto.FLOAT
    graph = helper.make_graph(
        nodes, "g", [helper.make_tensor_value_info("x", kind, shape)],
        [helper.make_tensor_value_info(name, kind, None) for name in outputs],
        [onnx.numpy_helper.from_array(kernel, "w")],
    )  # fmt: skip
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.save_model(made, path, **options)
    return kernel.reshape(4, 2)


@pytest.mark.parametrize("batch", ["n", 1, 2, 5])
@pytest.mark.parametrize("kind", ["NCDHW", "NCHW", "NDHWC"])
def test_layouts_and_batches(tmp_path, kind, batch):
    shape = {"NCDHW": [batch, 2, 4, 8, 8], "NCHW": [batch, 2, "h", "w"],
             "NDHWC": [batch, 20, 8, 8, 2]}[kind]  # fmt: skip
    x = np.concatenate([X] * 5, axis=1) if kind == "NDHWC" else X
    kernel = model(tmp_path / "m.onnx", shape)
    expected = x @ kernel.T
    mean = open_onnx(tmp_path / "m.onnx", "mean")
    np.testing.assert_allclose(mean(x), expected.mean((1, 2, 3)), atol=1e-5)
    if kind == "NDHWC":
        return  # what comes out of it has its channels first, as no network of this layout has
    maps = open_onnx(tmp_path / "m.onnx", "maps")
    np.testing.assert_allclose(maps(x), expected, atol=1e-5)
    region = np.zeros(x.shape[:-1], bool)
    region[:, 1:3, 2:4, 5] = True
    found = maps.embed(x, region)
    np.testing.assert_allclose(found, expected[:, 1:3, 2:4, 5].mean((1, 2)), atol=1e-5)
    assert maps.try_out((4, 8, 8), 2, regional=True) == 4


def test_what_does_not_fit_is_named(tmp_path):
    path = tmp_path / "m.onnx"
    model(path, ["n", 2, 8, 8])
    with pytest.raises(
        InputError, match="has the outputs maps, mean; name the one to take with --o"
    ):
        open_onnx(path)
    with pytest.raises(InputError, match="--output nothing: it has maps, mean"):
        open_onnx(path, "nothing")
    with pytest.raises(
        InputError, match="reads images of 8 x 8 voxels, and the shape gives 8 x 12"
    ):
        open_onnx(path, "mean")(np.zeros((1, 4, 8, 12, 2), np.float32))
    assert open_onnx(path, "mean").config.in_channels == 2
    assert content_hash(path, "mean") != content_hash(path, "maps")
    model(path, ["n", 2, 8, 8], ("pooled",))
    assert open_onnx(path)(X).shape == (3, 4, 1, 1, 4)
    path.write_bytes(b"no network")
    with pytest.raises(InputError, match="not readable by ONNX Runtime"):
        open_onnx(path)
    (tmp_path / "e.onnx").touch()
    with pytest.raises(InputError, match="the file is empty"):
        open_onnx(tmp_path / "e.onnx")
    with pytest.raises(InputError, match=r"names an output of an \.onnx file"):
        check_output_name("x", Path("model.pth"))
    check_output_name("x", Path("model.pth"), path)


def test_files_of_weights_beside_it_count(tmp_path):
    path, beside = tmp_path / "m.onnx", tmp_path / "weights.bin"
    model(
        path, ["n", 2, 8, 8], ("mean",), save_as_external_data=True, location=beside.name,
        size_threshold=0,
    )  # fmt: skip
    first = content_hash(path)
    assert np.isfinite(open_onnx(path)(X)).all()
    content = beside.read_bytes()
    beside.write_bytes(content[:-1] + bytes([content[-1] ^ 64]))
    assert open_onnx(path).fingerprint != first
    beside.unlink()
    with pytest.raises(
        InputError, match=r"its weights are in weights\.bin, which is not beside it"
    ):
        open_onnx(path)


def test_without_onnx_runtime_it_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    (tmp_path / "m.onnx").write_bytes(b"x")
    with pytest.raises(InputError, match=r"pip install 'radiomic-lens\[onnx\]'"):
        open_onnx(tmp_path / "m.onnx")
