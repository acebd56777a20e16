"""The way out for weights of another architecture: the few lines that get their embeddings.

The lines are notes of the refusal (`BaseException.add_note`), and those of the pages of docs/export
in short. Nothing is imported or run by what is said here.
"""

from __future__ import annotations

from pathlib import Path

_SLICES = """\
def encode(volumes):  # (n, D, H, W, 3), as this program prepares them; slices are averaged
    x = torch.from_numpy(volumes).movedim(-1, 2)
    return {call}.reshape(*x.shape[:2], -1).mean(1)"""

_VOLUMES = """\
def encode(volumes):  # (n, D, H, W, C), as this program prepares them
    return {call}.movedim(1, -1)"""

_TIMM = 'net = timm.create_model("ITS NAME", num_classes=0, checkpoint_path="{file}").eval()'
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
        'net.load_state_dict(torch.load("{file}")); net.eval()',
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
}

_ADAPTER = """\
Merge the adapter into its encoder, once:
    import peft, transformers
    base = transformers.AutoModel.from_pretrained("THE ENCODER IT ADAPTS")
    whole = peft.PeftModel.from_pretrained(base, "{folder}").merge_and_unload()
    whole.save_pretrained("merged")
then give merged, or see docs/export/huggingface.md for what is not DINOv2 or ConvNeXt V2"""

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
    names = {"file": str(path), "folder": str(path if path.is_dir() else path.parent)}
    if page in ("adapter", "lightning"):
        return {"adapter": _ADAPTER, "lightning": _LIGHTNING}[page].format(**names)
    code = "\n".join(_LINES[page]).replace("{file}", names["file"])
    code = code.replace("{folder}", names["folder"])
    indented = "\n".join(f"    {line}" for line in code.splitlines())
    return (
        f"Write encode.py, and give encode.py:encode in its place "
        f"(docs/export/{page.partition('-')[0]}.md):\n{indented}"
    )
