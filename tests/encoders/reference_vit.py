"""DINOv2 on random weights in PyTorch, and its weights under the names that others use."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import torch
import transformers

SMALL = {"hidden_size": 48, "num_hidden_layers": 5, "num_attention_heads": 3, "image_size": 42,
         "patch_size": 14}  # fmt: skip


def reference(registers: int = 0, **sizes: Any) -> Any:
    """The model of Hugging Face, with weights whose every part matters."""
    kind = "Dinov2WithRegisters" if registers else "Dinov2"
    more = {"num_register_tokens": registers} if registers else {}
    torch.manual_seed(registers)
    config = getattr(transformers, f"{kind}Config")(**{**SMALL, **more, **sizes})
    model = getattr(transformers, f"{kind}Model")(config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            centre = 1.0 if name.endswith(("norm1.weight", "norm2.weight", "lambda1")) else 0.0
            scale = 0.02 if parameter.ndim > 1 and "token" not in name else 0.3
            parameter.copy_(centre + scale * torch.randn_like(parameter))
    return model


def states(model: Any, x: np.ndarray) -> list[np.ndarray]:
    """Tokens after each block, and the final norm of the last ones."""
    images = torch.from_numpy(np.ascontiguousarray(np.moveaxis(x, -1, 1)))
    with torch.no_grad():
        out = model(images, output_hidden_states=True)
    return [*(state.numpy() for state in out.hidden_states[1:]), out.last_hidden_state.numpy()]


def arrays(model: Any) -> dict[str, np.ndarray]:
    """Its state dict, by the names of its modules."""
    return {name: tensor.numpy() for name, tensor in model.state_dict().items()}


def as_published(state: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """As the files of model hubs name it."""
    renamed = {}
    for name, array in state.items():
        for ours, theirs in (("q", "query"), ("k", "key"), ("v", "value")):
            name = name.replace(f"attention.{ours}_proj", f"attention.attention.{theirs}")
        name = name.replace("attention.o_proj", "attention.output.dense")
        name = name.replace("mlp.down_proj", "mlp.weights_out")
        renamed[name] = array
    for name in [name for name in renamed if "mlp.gate_proj" in name]:
        up = renamed.pop(name.replace("gate_proj", "up_proj"))
        joined = np.concatenate([renamed.pop(name), up])
        renamed[name.replace("gate_proj", "weights_in")] = joined
    return renamed


def as_original(state: dict[str, np.ndarray], chunk: int = 0) -> dict[str, np.ndarray]:
    """As the authors of DINOv2 name it; with `chunk`, blocks are wrapped in chunks of so many."""
    renamed: dict[str, np.ndarray] = {}
    for name, array in as_published(state).items():
        name = name.removeprefix("embeddings.").replace("position_embeddings", "pos_embed")
        name = name.replace("patch_embeddings.projection", "patch_embed.proj")
        name = re.sub(r"^layernorm\.", "norm.", name.replace("encoder.layer.", "blocks."))
        name = re.sub(r"layer_scale(\d)\.lambda1", r"ls\1.gamma", name)
        name = name.replace("attention.output.dense", "attn.proj")
        name = name.replace("weights_in", "w12").replace("weights_out", "w3")
        if "attention.attention.query" in name:
            others = [as_published(state)[_hub(name, other)] for other in ("key", "value")]
            array = np.concatenate([array, *others])
            name = name.replace("attention.attention.query", "attn.qkv")
        elif "attention.attention" in name:
            continue
        if chunk and (at := re.match(r"blocks\.(\d+)\.", name)):
            name = f"blocks.{int(at[1]) // chunk}.{name.removeprefix('blocks.')}"
        renamed[name] = array
    return renamed


def as_timm(state: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """As timm stores it: no mask token; with registers, the class token has no position."""
    renamed = as_original(state)
    renamed.pop("mask_token")
    if "register_tokens" in renamed:
        renamed["reg_token"] = renamed.pop("register_tokens")
        renamed["cls_token"] = renamed["cls_token"] + renamed["pos_embed"][:, :1]
        renamed["pos_embed"] = renamed["pos_embed"][:, 1:]
    return {
        name.replace("mlp.w12", "mlp.fc1").replace("mlp.w3", "mlp.fc2"): array
        for name, array in renamed.items()
    }


def _hub(name: str, part: str) -> str:
    return name.replace("blocks.", "encoder.layer.").replace("query", part)
