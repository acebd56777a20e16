"""The way out for weights of another architecture: the few lines that get their embeddings.

The lines are notes of the refusal (`BaseException.add_note`), and those of the pages of docs/export
in short. Nothing is imported or run by what is said here.
"""

from __future__ import annotations

import json
from pathlib import Path

_UNKNOWN = "THE ENCODER IT ADAPTS"

_SLICES = """\
def encode(volumes):  # (n, D, H, W, 3), as this program prepares them; slices are averaged
    x = torch.from_numpy(volumes).movedim(-1, 2)
    return {call}.reshape(*x.shape[:2], -1).mean(1)"""

_VOLUMES = """\
def encode(volumes):  # (n, D, H, W, C), as this program prepares them
    return {call}.movedim(1, -1)"""

_TIMM = 'net = timm.create_model("ITS NAME", num_classes=0, checkpoint_path="{file}").eval()'
_CONFIG = 'config = transformers.AutoConfig.from_pretrained("ITS NAME")  # or its config.json'
_FROM_CONFIG = "net = transformers.AutoModel.from_config(config)"
_STATE = 'net.load_state_dict(torch.load("{file}")); net.eval()'
_LINES = {
    "timm": ("import timm, torch", _TIMM, _SLICES.format(call="net(x.flatten(0, 1))")),
    "huggingface": (
        "import torch, transformers",
        'net = transformers.AutoModel.from_pretrained("{folder}").eval()',
        _SLICES.format(call="net(x.flatten(0, 1)).last_hidden_state[:, 0]"),
    ),
    "huggingface-pooled": (
        "import torch, transformers",
        'net = transformers.AutoModel.from_pretrained("{folder}").eval()',
        _SLICES.format(call="net(x.flatten(0, 1)).pooler_output"),
    ),
    "huggingface-alone": (
        "import torch, transformers", _CONFIG, _FROM_CONFIG, _STATE,
        _SLICES.format(call="net(x.flatten(0, 1)).last_hidden_state[:, 0]"),
    ),
    "huggingface-pooled-alone": (
        "import torch, transformers", _CONFIG, _FROM_CONFIG, _STATE,
        _SLICES.format(call="net(x.flatten(0, 1)).pooler_output"),
    ),
    "open_clip": (
        "import open_clip, torch",
        'net = open_clip.create_model("ITS NAME", pretrained="{file}").eval()',
        _SLICES.format(call="net.encode_image(x.flatten(0, 1))"),
    ),
    "torch": (
        "import torch; from your_code import Model",
        'net = Model(); net.load_state_dict(torch.load("{file}")); net.eval()',
        _SLICES.format(call="net(x.flatten(0, 1))"),
    ),
    "monai": (
        "import monai, torch",
        "net = monai.networks.nets.ITS_NAME(...)  # with the arguments of its training",
        _STATE,
        _VOLUMES.format(call="features(net, torch.from_numpy(volumes).movedim(-1, 1))"),
    ),
    "nnunet": (
        "import torch; from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor",
        'p = nnUNetPredictor(); p.initialize_from_trained_model_folder("{folder}/..", (0,))',
        "net = p.network.eval()",
        _VOLUMES.format(call="net.encoder(torch.from_numpy(volumes).movedim(-1, 1))[-1]"),
    ),
    "keras": (
        "import keras",
        'net = keras.models.load_model("{file}")',
        "net = keras.Model(net.input, net.layers[-2].output)  # without its head",
        "def encode(volumes):  # (n, D, H, W, C), as this program prepares them",
        "    return net.predict(volumes, verbose=0)",
    ),
}  # fmt: skip

_ADAPTER = """\
Merge the adapter into its encoder, once:
    import peft, transformers
    base = transformers.AutoModel.from_pretrained("{base}")
    whole = peft.PeftModel.from_pretrained(base, "{folder}").merge_and_unload()
    whole.save_pretrained("merged")
then give merged, or see docs/export/huggingface.md for what is not DINOv2 or ConvNeXt V2"""

_ADAPTER_ALONE = """\
Merge the adapter into its encoder, once. A file without the encoder's own weights needs them first
(state = torch.load(THE ENCODER) | state, with names alike), or give the folder that PEFT wrote:
    import torch
    state, scale = torch.load("{file}"), ALPHA / R  # lora_alpha and r of its training
    for a in [name for name in state if ".lora_A." in name]:
        at, _, end = a.partition(".lora_A.")
        own = f"{{at}}.base_layer.weight" if f"{{at}}.base_layer.weight" in state else f"{{at}}.weight"
        state[f"{{at}}.weight"] = state.pop(own) + scale * state.pop(f"{{at}}.lora_B.{{end}}") @ state.pop(a)
    torch.save({{name.replace(".base_layer", ""): w for name, w in state.items()}}, "weights.pth")
then give weights.pth, or see docs/export/huggingface.md for what is not DINOv2 or ConvNeXt V2"""  # noqa: E501

_LIGHTNING = """\
Save its weights alone, once; this runs what is in the file, so only with one that you trust:
    import torch
    state = torch.load("{file}", weights_only=False, map_location="cpu")["state_dict"]
    state = {{name.removeprefix("model."): tensor for name, tensor in state.items()}}
    torch.save(state, "weights.pth")
then give weights.pth, or see docs/export/torch.md for another encoder than ours"""


def lines_for(page: str, path: Path) -> str:
    """What to do with a file, as lines to copy.

    Args:
        page: of docs/export, without its ending, or ``adapter`` or ``lightning``.
        path: of the weights.
    """
    folder = path if path.is_dir() else path.parent
    names = {"file": str(path), "folder": str(folder), "base": _adapted(folder)}
    alone = not path.is_dir()
    if page == "adapter" and alone and not (folder / "adapter_config.json").is_file():
        return _loading(_ADAPTER_ALONE, path).format(**names)
    if page in ("adapter", "lightning"):
        return {"adapter": _ADAPTER, "lightning": _LIGHTNING}[page].format(**names)
    if page.startswith("huggingface") and alone and not _of_a_hub(path):
        page += "-alone"
    code = _loading("\n".join(_LINES[page]), path).replace("{file}", names["file"])
    code = code.replace("{folder}", names["folder"])
    indented = "\n".join(f"    {line}" for line in code.splitlines())
    return (
        f"Write encode.py, and give encode.py:encode in its place "
        f"(docs/export/{page.partition('-')[0]}.md):\n{indented}"
    )


def _loading(code: str, path: Path) -> str:
    """The lines, with the reader that the file needs."""
    if path.suffix != ".safetensors" or "torch.load(" not in code:
        return code
    code = code.replace('torch.load("{file}")', 'load_file("{file}")')
    return code.replace("import torch", "from safetensors.torch import load_file; import torch", 1)


def _of_a_hub(path: Path) -> bool:
    """Whether Hugging Face's libraries find a file by its folder."""
    named = path.stem.partition(".")[0] in ("model", "pytorch_model")
    return named and (path.parent / "config.json").is_file()


def _adapted(folder: Path) -> str:
    """The encoder that an adapter's folder names."""
    try:
        content = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
        return str(content["base_model_name_or_path"] or _UNKNOWN)
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return _UNKNOWN
