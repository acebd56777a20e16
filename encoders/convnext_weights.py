"""ConvNeXt V2 from foreign weights: a table of the names people use, and the change of layout.

A state dict is recognised by its names and shapes, never by its file name. The table covers the
published names (also ProFound's, dense and sparse), timm's and Hugging Face's; whatever prefix
wraps them (`module.`, `encoder.`, `visual.trunk.`, ...) is taken off.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

import jax.numpy as jnp
import numpy as np
from flax import nnx

from encoders.architectures import CONVNEXT_V1, shows
from encoders.convnext import KERNEL, ConvNeXtV2, ConvNeXtV2Config
from encoders.encoder import parameters
from encoders.state_dicts import Match, not_finite
from encoders.torch_files import is_averaged
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

_WRAPPERS = re.compile(
    r"(?:module|model|state_dict|encoder|backbone|convnextv2|student|teacher|_orig_mod)\."
)
"""Parts of a prefix that say nothing of what they wrap; any other names one encoder of the file."""

_ROOT = re.compile(rf"((?:.+?\.)?){_BLOCK}(?:dwconv|conv_dw)\.(?:weight|kernel)")
"""A depthwise kernel: what stands before its own name is the prefix of the encoder."""

_DEPTHWISE = re.compile(rf"blocks\.{_INDEX}\.{_INDEX}\.depthwise\.kernel")
"""The parameter that only this family has, with its stage and block."""

_ENCODER_PARTS = ("downsample_layers.", "stages.", "stem.", "embeddings.", "norm.", "layernorm.")
"""A name that starts so belongs to an encoder; if the table lacks it, it is another encoder's."""


@dataclass(frozen=True)
class _Source:
    """A state dict under our names, its arrays still in their layout."""

    arrays: dict[str, np.ndarray]
    names: dict[str, str]
    root: str = ""
    others: tuple[str, ...] = ()
    unexpected: list[str] = field(default_factory=list)
    ignored: list[str] = field(default_factory=list)

    @property
    def sparse(self) -> bool:
        return any(name.endswith(".kernel") for name in self.names.values())


def recognises(state: Mapping[str, np.ndarray]) -> bool:
    """Whether a depthwise kernel is there under any known name, and not that of a ConvNeXt V1."""
    return any(_ROOT.fullmatch(_dotted(name)) for name in state) and not shows(CONVNEXT_V1, state)


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
    source = _rename(state)
    config = _infer_config(source)
    encoder = nnx.eval_shape(lambda: ConvNeXtV2(config, rngs=nnx.Rngs(0)))
    match = _fill(encoder, source)
    if not match.full and not partial:
        raise InputError(
            f"the file does not hold this encoder completely: {match}; give the whole file, or "
            "accept that the rest starts at random (--partial)"
        )
    if len(match.matched) < len(parameters(encoder)):
        started = parameters(ConvNeXtV2(config, rngs=nnx.Rngs(0)))
        for name, parameter in parameters(encoder).items():
            if name not in match.matched:
                parameter.set_value(started[name][...])
    return encoder, match


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
        wrapper = _WRAPPERS.match(name)
        if wrapper is None:
            return None
        name = name[wrapper.end() :]


def _rename(state: Mapping[str, np.ndarray]) -> _Source:
    root, others = _roots(state)
    source = _Source({}, {}, root, others)
    has_teacher = any("teacher" in _wrappers(name) for name in state)
    for name, array in state.items():
        # Of a self-distillation file the averaged teacher is the encoder people use.
        left_out = has_teacher and "student" in _wrappers(name)
        if left_out or not name.startswith(root) or (others and name.startswith(others)):
            source.ignored.append(name)
            continue
        bare = _dotted(name.removeprefix(root))
        ours = our_name(bare)
        if ours is None:
            bare = bare[sum(len(wrapper) + 1 for wrapper in _wrappers(bare)) :]
            is_encoder = bare.startswith(_ENCODER_PARTS)
            (source.unexpected if is_encoder else source.ignored).append(name)
        elif ours in source.names:
            raise InputError(
                f"both {source.names[ours]} and {name} are {ours}; keep one encoder in the file"
            )
        else:
            source.names[ours], source.arrays[ours] = name, array
    return source


def _roots(state: Mapping[str, np.ndarray]) -> tuple[str, tuple[str, ...]]:
    """The prefix that names one encoder of the file, and the prefixes of those not taken.

    Raises:
        InputError: several, and their prefixes do not tell which one is meant.
    """
    found = [at[1] for name in state if (at := _ROOT.fullmatch(_dotted(name)))]
    roots = list(dict.fromkeys(found))
    best = roots
    if any("teacher" in _wrappers(root) for root in roots):
        best = [root for root in best if "student" not in _wrappers(root)]
    best = [root for root in best if "teacher" in root or not is_averaged(root)] or best
    fewest = min(map(_unknown_parts, best), default=0)
    best = [root for root in best if _unknown_parts(root) == fewest]
    named = sorted({_without_wrappers(root) for root in best})
    if len(named) > 1:
        raise InputError(
            f"{len(named)} encoders in it, under {', '.join(named)}; keep one of them in the file"
        )
    return (named or [""])[0], tuple(root for root in roots if root not in best)


def _unknown_parts(root: str) -> int:
    return sum(not _WRAPPERS.fullmatch(f"{part}.") for part in root.split(".")[:-1])


def _without_wrappers(root: str) -> str:
    """The prefix up to its last part that is no wrapper: Hugging Face wraps only the stages."""
    parts = root.split(".")[:-1]
    while parts and _WRAPPERS.fullmatch(f"{parts[-1]}."):
        parts.pop()
    return "".join(f"{part}." for part in parts)


def _dotted(name: str) -> str:
    """timm's networks for features only join a part and its number by an underscore."""
    return re.sub(r"(^|\.)(stem|stages)_([0-9]{1,3})\.", r"\1\2.\3.", name)


def _wrappers(name: str) -> list[str]:
    """What wraps a name, from the outside: ``["teacher", "backbone"]``."""
    found = []
    while wrapper := _WRAPPERS.match(name):
        found.append(wrapper[0][:-1])
        name = name[wrapper.end() :]
    return found


def _infer_config(source: _Source) -> ConvNeXtV2Config:
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


def _fill(encoder: ConvNeXtV2, source: _Source) -> Match:
    """Puts every array that fits into the encoder."""
    dims, ours = encoder.config.dims, parameters(encoder)
    matched, missing, mismatched, defaulted = {}, [], [], []
    for name, parameter in ours.items():
        if name not in source.arrays:
            # The encoder of a masked autoencoder ends before the final norm; fine-tuning adds it.
            absent = defaulted if source.sparse and name.startswith("norm.") else missing
            absent.append(name)
            continue
        if not jnp.issubdtype(source.arrays[name].dtype, jnp.floating):
            kind = source.arrays[name].dtype
            raise InputError(
                f"{source.names[name]} holds {kind} numbers; export the weights as float32"
            )
        array = _layout(name, source.arrays[name], dims)
        if array.shape != parameter.shape:
            theirs = source.arrays[name].shape
            mismatched.append(f"{source.names[name]} {theirs} for {name} {parameter.shape}")
            continue
        if wrong := not_finite(array):
            raise InputError(
                f"{source.names[name]} is not finite ({wrong}); its training diverged or the file "
                "is damaged: take an earlier checkpoint"
            )
        parameter.set_value(jnp.asarray(array))
        matched[name] = source.names[name]
    extra = [source.names[name] for name in source.names if name not in ours]
    return Match(
        matched,
        tuple(missing),
        tuple(source.unexpected + extra),
        tuple(mismatched),
        tuple(source.ignored),
        tuple(defaulted),
        source.root.rstrip("."),
        tuple(other.rstrip(".") for other in source.others),
    )


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
