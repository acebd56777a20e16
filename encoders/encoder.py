"""What training, embedding and checkpoints need of an encoder, whatever its family."""

from __future__ import annotations

import dataclasses
from typing import Any, Protocol, runtime_checkable

import numpy as np
from flax import nnx
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from lens.disk import array_hash


@runtime_checkable
class EncoderConfig(Protocol):
    """What determines an encoder: a frozen dataclass of numbers, text and tuples of them.

    Two further fields are set where a family has them: ``drop_path``, the stochastic depth while it
    trains, and ``remat``, to recompute activations in the backward pass.
    """

    @property
    def dims(self) -> int:
        """Spatial axes of the input: 3 for volumes, 2 for images."""
        ...

    @property
    def in_channels(self) -> int:
        """Channels of the input."""
        ...

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels of each stage's feature map."""
        ...

    @property
    def total_strides(self) -> tuple[int, ...]:
        """Voxels of the input per voxel of each stage's feature map, along each axis."""
        ...

    @property
    def features(self) -> int:
        """Numbers of an embedding; the channels of the last stage."""
        ...

    @property
    def dtype(self) -> str:
        """Of the arithmetic; parameters and embeddings are float32."""
        ...


@runtime_checkable
class Encoder(Protocol):
    """An encoder: an `nnx.Module` whose variables are all `nnx.Param`.

    `encoders.families` lists the families, and how each is built from its configuration.
    """

    @property
    def config(self) -> EncoderConfig:
        """What the encoder is built from; an attribute that `reconfigure` may replace."""
        ...

    def __call__(
        self, x: Float[Array | np.ndarray, "n *spatial c"], *, key: PRNGKeyArray | None = None
    ) -> Float[Array, "n f"]:
        """Embeddings (n, features), float32, of volumes (n, D, H, W, c) or images (n, H, W, c).

        Args:
            x: the input.
            key: randomness of regularisation while training; None for inference.
        """
        ...

    def stages(
        self,
        x: Float[Array | np.ndarray, "n *spatial c"],
        *,
        key: PRNGKeyArray | None = None,
        visible: Bool[Array | np.ndarray, "n ..."] | None = None,
    ) -> tuple[Float[Array, "n ..."], ...]:
        """Feature map (n, *grid, width) of each stage.

        Args:
            x: the input, as in `__call__`.
            key: as in `__call__`.
            visible: patches (n, *patches) that may enter; features elsewhere are zero. A family
                that cannot leave patches out raises ValueError, and cannot be pre-trained.
        """
        ...

    def normalise(self, mean: Float[Array, "n f"]) -> Float[Array, "n f"]:
        """Embeddings (n, features), float32, from means of the last stage's map over a region."""
        ...

    def layers_above(self, path: tuple[str | int, ...]) -> int:
        """Layers from a parameter up to the head, its own included: 1 for the last layer.

        Layer-wise rates follow from this number.

        Args:
            path: names and indices of the parameter within the encoder.
        """
        ...


def parameters(encoder: Encoder) -> dict[str, nnx.Param]:
    """The encoder's parameters by dotted name, e.g. ``blocks.0.1.grn.gamma``."""
    flat = nnx.to_flat_state(nnx.state(encoder, nnx.Param))
    return {".".join(map(str, path)): parameter for path, parameter in flat}


def encoder_hash(encoder: Encoder) -> str:
    """SHA-256 over the parameters, as 64 hex digits."""
    named = sorted(parameters(encoder).items())
    return array_hash(*(np.asarray(parameter[...]) for _, parameter in named))


def reconfigure(encoder: Any, **changes: Any) -> None:
    """Replaces fields of the encoder's configuration, in place.

    Args:
        encoder: an `Encoder`, or what stands for one.
        changes: the fields; one that the family lacks is passed over if it is 0 or False.

    Raises:
        ValueError: the family lacks a field that is to be switched on.
    """
    known = {field.name for field in dataclasses.fields(encoder.config)}
    if lacking := [name for name, value in changes.items() if value and name not in known]:
        raise ValueError(f"{type(encoder).__name__} has no {lacking[0]}; leave it out")
    fields = {name: value for name, value in changes.items() if name in known}
    encoder.config = dataclasses.replace(encoder.config, **fields)
