"""Weights of other encoders are called what they are, and answered with lines that run."""

from __future__ import annotations

import ast
import json
import re
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

import encoders
from encoders.architectures import architecture
from encoders.ways_out import lines_for
from experiments.common.failures import explain
from lens.errors import InputError

PAGES = Path(__file__).resolve().parents[2] / "docs" / "export"
KINDS = {
    "timm": ["patch_embed.proj.weight", "blocks.0.attn.qkv.weight"],
    "huggingface": ["embeddings.cls_token", "encoder.layer.0.attention.attention.query.weight"],
    "huggingface-pooled": ["encoder.stages.0.layers.0.layer.0.convolution.weight"],
    "open_clip": ["visual.transformer.resblocks.0.attn.in_proj_weight"],
    "monai": ["convInit.conv.weight", "down_layers.0.1.conv1.conv.weight"],
    "nnunet": ["encoder.stages.0.0.convs.0.conv.weight"],
    "torch": ["features.0.weight", "classifier.1.bias"],
    "adapter": ["base_model.model.encoder.layer.0.attention.attention.query.lora_A.weight"],
}


def refusal(path: Path) -> str:
    """What a job prints."""
    with pytest.raises(InputError) as found:
        encoders.load(path)
    return explain(found.value, "embed")[0]


def code_in(printed: str) -> str:
    """The indented lines, which must be Python."""
    lines = [line[4:] for line in printed.splitlines() if line.startswith("    ")]
    code = "\n".join(lines)
    ast.parse(code)
    assert len([line for line in lines if line.strip()]) <= 7
    return code


@pytest.mark.parametrize("page", KINDS)
def test_the_lines_are_of_the_library_and_name_the_file(tmp_path, page):
    file = tmp_path / "weights.safetensors"
    save_file({name: np.ones((2, 2), np.float32) for name in KINDS[page]}, file)
    printed = refusal(file)
    code = code_in(printed)
    assert str(file) in code or str(tmp_path) in code
    if page != "adapter":
        assert "encode.py:encode" in printed
        assert "def encode(volumes)" in code
        assert (PAGES / f"{page.partition('-')[0]}.md").is_file()
    for named in re.findall(r"docs/[\w/]+\.md", printed):
        assert (PAGES.parents[1] / named).is_file(), named


def test_a_resnet_of_volumes_is_not_of_timm():
    names = ["layer1.0.conv1.weight"]
    flat, deep = architecture(names), architecture(names, volumes=True)
    assert flat is not None
    assert deep is not None
    assert (flat.page, deep.page, deep.name) == ("timm", "monai", "ResNet in 3D")


@pytest.mark.parametrize("end", ["pth", "safetensors"])
def test_a_file_alone_gets_lines_that_need_no_folder(tmp_path, end):
    import transformers

    settings = {"image_size": 32, "patch_size": 4, "embed_dim": 8, "depths": [1], "num_heads": [1]}
    config = transformers.SwinConfig(**settings)
    torch.manual_seed(0)
    net = transformers.SwinModel(config).eval()
    file = tmp_path / f"swin.{end}"
    if end == "pth":
        torch.save(net.state_dict(), file)
    else:
        save_file({name: value.numpy() for name, value in net.state_dict().items()}, file)
    code = code_in(refusal(file))
    config.save_pretrained(tmp_path / "config")
    namespace: dict = {}
    exec(code.replace("ITS NAME", str(tmp_path / "config")), namespace)
    volumes = np.random.default_rng(0).normal(size=(2, 3, 32, 32, 3)).astype(np.float32)
    with torch.no_grad():
        found = namespace["encode"](volumes)
        slices = torch.from_numpy(volumes).movedim(-1, 2).flatten(0, 1)
        expected = net(slices).pooler_output.reshape(2, 3, -1).mean(1)
    torch.testing.assert_close(found, expected)


def test_a_lora_file_alone_is_merged_by_its_lines(tmp_path):
    torch.manual_seed(0)
    a, b, whole, other = torch.randn(2, 5), torch.randn(3, 2), torch.randn(3, 5), torch.randn(3, 5)
    state = {
        "layer.0.query.base_layer.weight": whole, "layer.0.query.base_layer.bias": torch.ones(3),
        "layer.0.query.lora_A.default.weight": a, "layer.0.query.lora_B.default.weight": b,
        "layer.1.query.weight": other,
        "layer.1.query.lora_A.weight": a, "layer.1.query.lora_B.weight": b,
    }  # fmt: skip
    file, out = tmp_path / "lora.pth", tmp_path / "weights.pth"
    torch.save(state, file)
    code = code_in(refusal(file)).replace('"weights.pth"', repr(str(out)))
    exec(code.replace("ALPHA / R", "8 / 2"), {})
    made = torch.load(out)
    assert sorted(made) == ["layer.0.query.bias", "layer.0.query.weight", "layer.1.query.weight"]
    torch.testing.assert_close(made["layer.0.query.weight"], whole + 4 * b @ a)
    torch.testing.assert_close(made["layer.1.query.weight"], other + 4 * b @ a)


def test_the_encoder_that_an_adapter_names_is_in_the_lines(tmp_path):
    (tmp_path / "adapter_config.json").write_text('{"base_model_name_or_path": "lab/encoder"}')
    file = tmp_path / "adapter_model.safetensors"
    save_file({name: np.ones((2, 2), np.float32) for name in KINDS["adapter"]}, file)
    for given in (tmp_path, file):
        code = code_in(refusal(given))
        assert 'AutoModel.from_pretrained("lab/encoder")' in code
        assert str(tmp_path) in code


class Settings:
    """Hyper-parameters as people keep them."""


def test_lightning_with_hyper_parameters(tmp_path):
    file = tmp_path / "last.ckpt"
    state = {"model.conv.weight": torch.ones(2, 2)}
    content = {
        "state_dict": state,
        "pytorch-lightning_version": "2.5",
        "hyper_parameters": Settings(),
    }
    torch.save(content, file)
    printed = refusal(file)
    assert "nothing ran" in printed
    code = code_in(printed)
    namespace: dict = {}
    exec(code.replace('"weights.pth"', repr(str(tmp_path / "weights.pth"))), namespace)
    assert list(torch.load(tmp_path / "weights.pth")) == ["conv.weight"]


def test_folders_and_parts_of_other_programs(tmp_path):
    for name, what in {
        "adapter_config.json": "a PEFT adapter",
        "configs/metadata.json": "a bundle of MONAI",
        "plans.json": "a trained model of nnU-Net",
    }.items():
        folder = tmp_path / name.partition(".")[0].replace("/", "-")
        (folder / name).parent.mkdir(parents=True)
        (folder / name).write_text(json.dumps({}))
        printed = refusal(folder)
        assert what in printed
        assert str(folder) in code_in(printed)
    part = tmp_path / "model-00001-of-00003.safetensors"
    save_file({"a.weight": np.ones(2, np.float32)}, part)
    assert "one of the 3 files of a checkpoint; give their index" in refusal(part)


def test_keras(tmp_path):
    file = tmp_path / "model.h5"
    file.write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(64))
    assert "keras.models.load_model" in code_in(refusal(file))
    with zipfile.ZipFile(tmp_path / "model.keras", "w") as archive:
        archive.writestr("model.weights.h5", b"")
    assert "a model of Keras" in refusal(tmp_path / "model.keras")
    assert "docs/export/keras.md" in lines_for("keras", file)
