"""ConvNeXt V2 from foreign weights: a table of the names people use, and the change of layout.

A state dict is recognised by its names and shapes, never by its file name. The table covers the
published names (also ProFound's, dense and sparse), timm's and Hugging Face's; whatever prefix
wraps them (`module.`, `encoder.`, `visual.trunk.`, ...) is taken off.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import numpy as np

from encoders.architectures import CONVNEXT_V1, shows
from encoders.convnext import KERNEL, ConvNeXtV2, ConvNeXtV2Config
from encoders.renaming import Source, bare_name, build, rename
from encoders.state_dicts import Match
from lens.errors import InputError

_INDEX = "([0-9]{1,3})"
"""No network has a thousand stages or blocks: a larger index is no name of the table."""

_BLOCK = rf"stages\.{_INDEX}\.(?:(?:blocks|layers)\.)?{_INDEX}\."

_TABLE = (
    (r"(?:downsample_layers\.0|stem)\.0", "downsamples.0.conv"),
    (r"(?:downsample_layers\.0|stem)\.1", "downsamples.0.norm"),
    (r"embeddings\.patch_embeddings", "downsamples.0.conv"),
    (r"embeddings\.layernorm", "downsamples.0.norm"),
    (r"downsample_layers\.([1-9])\.0", r"downsamples.\1.norm"),
    (r"downsample_layers\.([1-9])\.1", r"downsamples.\1.conv"),
    (rf"stages\.{_INDEX}\.(?:downsample|downsampling_layer)\.0", r"downsamples.\1.norm"),
    (rf"stages\.{_INDEX}\.(?:downsample|downsampling_layer)\.1", r"downsamples.\1.conv"),
    (_BLOCK + r"(?:dwconv|conv_dw)", r"blocks.\1.\2.depthwise"),
    (_BLOCK + r"(?:norm|layernorm)", r"blocks.\1.\2.norm"),
    (_BLOCK + r"(?:pwconv1|mlp\.fc1)", r"blocks.\1.\2.expand"),
    (_BLOCK + r"(?:mlp\.)?grn", r"blocks.\1.\2.grn"),
    (_BLOCK + r"(?:pwconv2|mlp\.fc2)", r"blocks.\1.\2.project"),
    (r"norm|layernorm|head\.norm", "norm"),
)
"""Module names: a pattern that must match as a whole, and our module."""

_PARAMETER = r"(?P<module>.+?)(?:\.(?:ln|linear))?\.(?P<parameter>weight|bias|kernel|gamma|beta)"
"""Sparse files put `.ln.` and `.linear.` between the module and its parameter."""

_LEAVES = {
    "conv": {"weight": "kernel", "kernel": "kernel", "bias": "bias"},
    "depthwise": {"weight": "kernel", "kernel": "kernel", "bias": "bias"},
    "expand": {"weight": "kernel", "bias": "bias"},
    "project": {"weight": "kernel", "bias": "bias"},
    "norm": {"weight": "scale", "bias": "bias"},
    "grn": {"gamma": "gamma", "beta": "beta", "weight": "gamma", "bias": "beta"},
}
"""What our modules call the parameters of theirs."""

_ROOT = re.compile(rf"((?:.+?\.)?){_BLOCK}(?:dwconv|conv_dw)\.(?:weight|kernel)")
"""A depthwise kernel: what stands before its own name is the prefix of the encoder."""

_DEPTHWISE = re.compile(rf"blocks\.{_INDEX}\.{_INDEX}\.depthwise\.kernel")
"""The parameter that only this family has, with its stage and block."""

_ENCODER_PARTS = (
    "downsample_layers.", "stages.", "stages_", "stem.", "stem_", "embeddings.", "norm.",
    "layernorm.",
)  # fmt: skip
"""A name that starts so belongs to an encoder; if the table lacks it, it is another encoder's."""


def recognises(state: Mapping[str, np.ndarray]) -> bool:
    """Whether a depthwise kernel is there under any known name, and not that of a ConvNeXt V1."""
    return any(_root(name) is not None for name in state) and not shows(CONVNEXT_V1, state)


def convert(state: Mapping[str, np.ndarray], *, partial: bool = False) -> tuple[ConvNeXtV2, Match]:
    """Builds the encoder that a PyTorch state dict describes.

    Args:
        state: names and arrays, as PyTorch or timm or Hugging Face or ProFound store them.
        partial: accept a file that does not match fully; what it lacks keeps the initialisation
            with seed 0.

    Returns:
        The encoder, its configuration inferred from the shapes, and the report of names.

    Raises:
        InputError: no encoder in it, or not a full match while `partial` is False.
    """
    source = rename(state, our_name, _root, _ENCODER_PARTS)
    config = _infer_config(source)
    sparse = any(name.endswith(".kernel") for name in source.names.values())
    return build(
        lambda rngs: ConvNeXtV2(config, rngs=rngs),
        source,
        lambda name, array: _layout(name, array, config.dims),
        # The encoder of a masked autoencoder ends before the final norm; fine-tuning adds it.
        defaulted=lambda name: sparse and name.startswith("norm."),
        partial=partial,
    )


def our_name(name: str) -> str | None:
    """Our parameter for a foreign name, or None where it is no part of the encoder."""
    name = _dotted(name)
    while True:
        if found := re.fullmatch(_PARAMETER, name):
            for pattern, module in _TABLE:
                if at := re.fullmatch(pattern, found["module"]):
                    ours = at.expand(module)
                    leaf = _LEAVES[ours.rsplit(".", 1)[-1]].get(found["parameter"])
                    return f"{ours}.{leaf}" if leaf else None
        if (inside := bare_name(name)) is None:
            return None
        name = inside


def _root(name: str) -> str | None:
    found = _ROOT.fullmatch(_dotted(name))
    return found[1] if found else None


def _dotted(name: str) -> str:
    """timm's networks for features only join a part and its number by an underscore."""
    return re.sub(r"(^|\.)(stem|stages)_([0-9]{1,3})\.", r"\1\2.\3.", name)


def _infer_config(source: Source) -> ConvNeXtV2Config:
    """Reads dimensions, depths, widths and strides off the shapes."""
    blocks = [_DEPTHWISE.fullmatch(name) for name in source.arrays]
    found = [(int(at[1]), int(at[2])) for at in blocks if at]
    if not found:
        raise InputError(
            "no ConvNeXt V2 encoder in it: no depthwise kernel under any known name (it has "
            f"{', '.join([*source.ignored, *source.unexpected][:6]) or 'nothing'})"
        )
    stages = 1 + max(stage for stage, _ in found)
    depths = tuple(1 + max((b for s, b in found if s == i), default=-1) for i in range(stages))
    shape = source.arrays["blocks.{}.{}.depthwise.kernel".format(*found[0])].shape
    dims = {KERNEL**2: 2, KERNEL**3: 3}.get(shape[0]) if len(shape) == 2 else len(shape) - 2
    if dims not in (2, 3) or (len(shape) > 2 and set(shape[2:]) != {KERNEL}):
        raise InputError(f"depthwise kernels of shape {shape}; expected {KERNEL} along 2 or 3 axes")

    def shape_of(name: str) -> tuple[int, ...]:
        if name not in source.arrays:
            raise InputError(f"{name} is missing, and without it the sizes cannot be inferred")
        return source.arrays[name].shape

    def stride(stage: int) -> int:
        kernel = shape_of(f"downsamples.{stage}.conv.kernel")
        if not is_sparse_conv(kernel, dims):
            return kernel[2]
        return round(kernel[0] ** (1 / dims)) if len(kernel) == 3 else 1

    stem = shape_of("downsamples.0.conv.kernel")
    try:
        return ConvNeXtV2Config(
            dims=dims,
            depths=depths,
            widths=tuple(max(shape_of(f"blocks.{s}.0.norm.scale")) for s in range(stages)),
            in_channels=stem[-2] if is_sparse_conv(stem, dims) else stem[1],
            strides=tuple(stride(stage) for stage in range(1, stages)),
        )
    except (ValueError, IndexError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"the shapes describe no ConvNeXt V2 encoder ({error})") from error


def is_sparse_conv(shape: tuple[int, ...], dims: int) -> bool:
    """Sparse kernels are (positions, in, out) or, for one position, (in, out)."""
    return len(shape) < dims + 2


def _layout(name: str, array: np.ndarray, dims: int) -> np.ndarray:
    """A foreign array in our layout, as float32: kernels are (*space, in, out), channels last."""
    array = np.asarray(array, dtype=np.float32)
    _, module, leaf = ("." + name).rsplit(".", 2)
    if leaf != "kernel":
        # Response norms are stored as (1, ..., 4C), sparse biases as (1, C).
        return array.reshape(-1) if array.size == max(array.shape, default=0) else array
    if module in ("expand", "project"):
        # timm's variant with 1x1 convolutions has trailing axes of one.
        return array.reshape(array.shape[:2]).T if set(array.shape[2:]) <= {1} else array
    if module == "depthwise" and array.ndim == 2:
        return _unflatten(array, dims)
    if module == "depthwise" and array.ndim == dims + 2 and array.shape[1] == 1:
        return np.moveaxis(array[:, 0], 0, -1)
    if array.ndim == 3:
        return _unflatten(array, dims)
    if array.ndim == 2:
        return array.reshape(*(1,) * dims, *array.shape)
    return np.moveaxis(array, (0, 1), (-1, -2)) if array.ndim == dims + 2 else array


def _unflatten(array: np.ndarray, dims: int) -> np.ndarray:
    """Sparse kernels list their positions with the last spatial axis slowest."""
    size = round(array.shape[0] ** (1 / dims))
    if size**dims != array.shape[0]:
        return array
    array = array.reshape(*(size,) * dims, *array.shape[1:])
    return np.swapaxes(array, 0, dims - 1)
