"""Weights of another architecture are called what they are, with the way out."""

from __future__ import annotations

import re

import numpy as np
import pytest
import transformers

from encoders.architectures import architecture
from encoders.families import convert
from lens.errors import InputError
from tests.encoders.reference import Reference, arrays, as_timm

# Names as published code writes them; those of Hugging Face come from its own models below.
PUBLISHED = {
    "ConvNeXt V1": [
        "downsample_layers.0.0.weight", "stages.0.0.gamma", "stages.0.0.dwconv.weight",
        "stages.0.0.norm.weight", "stages.0.0.pwconv1.weight",
    ],
    "ViT": ["cls_token", "pos_embed", "patch_embed.proj.weight", "blocks.0.attn.qkv.weight"],
    "DINOv2": ["cls_token", "blocks.0.attn.qkv.weight", "blocks.0.ls1.gamma"],
    "Swin": ["layers.0.blocks.0.attn.relative_position_bias_table", "blocks.0.attn.qkv.bias"],
    "ResNet": ["conv1.weight", "bn1.running_mean", "layer1.0.conv1.weight", "fc.weight"],
    "nnU-Net": ["encoder.stages.0.0.convs.0.conv.weight", "decoder.seg_layers.0.weight"],
    "DenseNet": ["features.denseblock1.denselayer1.norm1.weight"],
    "EfficientNet": ["conv_stem.weight", "blocks.0.0.conv_dw.weight"],
}  # fmt: skip


@pytest.mark.parametrize("prefix", ["", "module.", "student.backbone."])
@pytest.mark.parametrize("name", PUBLISHED)
def test_architectures_are_called_by_name(name, prefix):
    state = {prefix + key: np.ones(2, np.float32) for key in PUBLISHED[name]}
    remedy = r"its own code and give the tables of embeddings \(--pre, --ft\)"
    message = rf"no ConvNeXt V2 or DINOv2 ViT encoder in it: .* weights of a {name}.*{remedy}"
    for partial in (False, True):
        with pytest.raises(InputError, match=message):
            convert(state, partial=partial)


@pytest.mark.parametrize(
    ("model", "name", "sizes"),
    [
        ("ConvNext", "ConvNeXt V1", {"hidden_sizes": [8] * 4, "depths": [1] * 4}),
        ("ViT", "ViT", {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1,
            "intermediate_size": 8}),
        ("Dinov2", "DINOv2", {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}),
        ("Swin", "Swin", {"embed_dim": 8, "depths": [1], "num_heads": [1]}),
        ("ResNet", "ResNet", {"embedding_size": 8, "hidden_sizes": [8], "depths": [1]}),
    ],
)  # fmt: skip
def test_the_models_of_hugging_face(model, name, sizes):
    network = getattr(transformers, f"{model}Model")(
        getattr(transformers, f"{model}Config")(**sizes)
    )
    found = architecture(network.state_dict())
    assert found is not None
    assert found[0].startswith(name)
    assert found[1] in network.state_dict()


def test_our_own_family_and_nothing_are_no_other_architecture():
    dense = arrays(Reference())
    assert architecture(dense) is None
    assert architecture(as_timm(dense)) is None
    assert architecture([]) is None
    with pytest.raises(InputError, match=re.escape("(it has a.weight, b.weight)")):
        convert({"a.weight": np.ones(2), "b.weight": np.ones(2)})
