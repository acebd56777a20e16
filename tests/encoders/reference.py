"""The 3D encoder written with torch.nn modules under the published names, and its dialects."""

from __future__ import annotations

import re

import numpy as np
import torch
from torch import nn


def channels_last(x: torch.Tensor) -> torch.Tensor:
    # Not `movedim`, which is exported to ONNX with an axis of -1, for which it has no place.
    return x.permute(0, *range(2, x.ndim), 1)


def channels_first(x: torch.Tensor) -> torch.Tensor:
    return x.permute(0, x.ndim - 1, *range(1, x.ndim - 1))


class ChannelsFirstNorm(nn.LayerNorm):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return channels_first(super().forward(channels_last(x)))


class GRN(nn.Module):
    def __init__(self, width: int, dims: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.zeros(*(1,) * (dims + 1), width))
        self.beta = nn.Parameter(torch.zeros(*(1,) * (dims + 1), width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        norm = torch.norm(x, p=2, dim=tuple(range(1, x.ndim - 1)), keepdim=True)
        return self.gamma * (x * (norm / (norm.mean(dim=-1, keepdim=True) + 1e-6))) + self.beta + x


class Block(nn.Module):
    def __init__(self, width: int, dims: int) -> None:
        super().__init__()
        conv = nn.Conv3d if dims == 3 else nn.Conv2d
        self.dwconv = conv(width, width, 7, padding=3, groups=width)
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.pwconv1 = nn.Linear(width, 4 * width)
        self.grn = GRN(4 * width, dims)
        self.pwconv2 = nn.Linear(4 * width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.norm(channels_last(self.dwconv(x)))
        y = self.pwconv2(self.grn(nn.functional.gelu(self.pwconv1(y))))
        return x + channels_first(y)


class Reference(nn.Module):
    """ConvNeXt V2 with channels first; ``forward`` gives the embedding and the four stages."""

    def __init__(
        self,
        depths: tuple[int, ...] = (1, 2, 1, 1),
        widths: tuple[int, ...] = (8, 16, 24, 32),
        strides: tuple[int, ...] = (2, 2, 1),
        dims: int = 3,
    ) -> None:
        super().__init__()
        conv = nn.Conv3d if dims == 3 else nn.Conv2d
        stem = nn.Sequential(conv(3, widths[0], 4, 4), ChannelsFirstNorm(widths[0], eps=1e-6))
        between = [
            nn.Sequential(ChannelsFirstNorm(a, eps=1e-6), conv(a, b, stride, stride))
            for a, b, stride in zip(widths[:-1], widths[1:], strides, strict=True)
        ]
        self.downsample_layers = nn.ModuleList([stem, *between])
        self.stages = nn.ModuleList(
            nn.Sequential(*(Block(width, dims) for _ in range(depth)))
            for depth, width in zip(depths, widths, strict=True)
        )
        self.norm = nn.LayerNorm(widths[-1], eps=1e-6)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
        outputs = []
        for downsample, stage in zip(self.downsample_layers, self.stages, strict=True):
            x = stage(downsample(x))
            outputs.append(x)
        return self.norm(x.mean(dim=tuple(range(2, x.ndim)))), outputs


def randomise(module: nn.Module, seed: int = 0) -> None:
    """Random values everywhere, also where training starts from 0 or 1."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in module.parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        fan_in = parameter[0].numel() if parameter.ndim in (2, 4, 5) else 1
        # GRN parameters and biases have no fan-in; a kernel keeps the variance of its input.
        scale = fan_in**-0.5 if parameter.shape[0] > 1 and parameter.ndim > 1 else 0.3
        parameter.data = noise * scale + (parameter.data.mean().round() if scale == 0.3 else 0)


def arrays(module: nn.Module) -> dict[str, np.ndarray]:
    return {name: tensor.detach().numpy() for name, tensor in module.state_dict().items()}


def as_sparse(state: dict[str, np.ndarray], prefix: str = "encoder.") -> dict[str, np.ndarray]:
    """A dense state dict as the sparse masked autoencoder stores it."""
    out = {}
    for name, array in state.items():
        new = name
        if re.search(r"(dwconv|downsample_layers\.[1-9]\.1)\.weight", name):
            new = name.replace(".weight", ".kernel")
            dims = array.ndim - 2
            # (out, in, D, H, W) -> (W, H, D, in, out): the last spatial axis is the slowest.
            array = np.transpose(array, (*range(dims + 1, 1, -1), 1, 0))
            array = array.reshape(-1, *array.shape[dims:])
            array = array[:, 0] if "dwconv" in name else array
            array = array[0] if array.shape[0] == 1 and array.ndim == 3 else array
        elif re.search(r"(dwconv|downsample_layers\.[1-9]\.1)\.bias", name):
            array = array[None]
        elif ".grn." in name:
            array = array.reshape(1, -1)
        elif re.search(r"(stages\.\d+\.\d+\.norm|downsample_layers\.[1-9]\.0)\.", name):
            new = re.sub(r"\.(weight|bias)$", r".ln.\1", name)
        elif "pwconv" in name:
            new = re.sub(r"\.(weight|bias)$", r".linear.\1", name)
        elif name.startswith("norm."):
            continue
        out[prefix + new] = np.ascontiguousarray(array)
    out["mask_token"] = np.zeros((1, 512, 1, 1, 1), np.float32)
    out["proj.weight"] = np.zeros((512, state["norm.weight"].size, 1, 1, 1), np.float32)
    out["decoder.0.dwconv.weight"] = np.zeros((512, 1, 7, 7, 7), np.float32)
    out["pred.bias"] = np.zeros(3 * 16**3, np.float32)
    return out


def as_timm(state: dict[str, np.ndarray], *, conv_mlp: bool = False) -> dict[str, np.ndarray]:
    """A dense state dict under timm's names, its perceptrons as layers or as 1x1 convolutions."""
    out = {}
    for name, array in state.items():
        new = re.sub(r"^downsample_layers\.0\.", "stem.", name)
        new = re.sub(r"^downsample_layers\.(\d)\.", r"stages.\1.downsample.", new)
        new = re.sub(r"^stages\.(\d+)\.(\d+)\.", r"stages.\1.blocks.\2.", new)
        new = new.replace("dwconv", "conv_dw").replace("pwconv", "mlp.fc")
        if "grn" in new:
            new = new.replace("grn.gamma", "mlp.grn.weight").replace("grn.beta", "mlp.grn.bias")
            array = array.reshape(-1)
        if conv_mlp and re.search(r"mlp\.fc\d\.weight", new):
            array = array[:, :, None, None]
        new = re.sub(r"^norm\.", "head.norm.", new)
        out[new] = array
    out["head.fc.weight"] = np.zeros((4, state["norm.weight"].size), np.float32)
    return out


def compare(ours: np.ndarray, theirs: torch.Tensor) -> float:
    """The largest difference relative to the largest value, theirs with channels first."""
    expected = theirs.movedim(1, -1).detach().numpy()
    assert ours.shape == expected.shape
    return float(np.abs(ours - expected).max() / np.abs(expected).max())
