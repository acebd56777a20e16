"""Blocks as stages: the same maps in one pass, and all layers of a cohort in one table."""

from __future__ import annotations

import numpy as np
import pytest
from flax import nnx

from encoders import ConvNeXtV2, ConvNeXtV2Config, ViT, ViTConfig
from encoders.blocks import ByBlock, block_config, layer_names
from encoders.embedding import embed
from encoders.functions import FunctionConfig
from lens.errors import InputError

LAYOUT = ConvNeXtV2Config(dims=2, depths=(1, 2), widths=(4, 6), strides=(2,), in_channels=1)
TOKENS = ViTConfig(depth=5, width=8, heads=2, hidden=16, patch=4, grid=(3, 3), in_channels=1)


@pytest.mark.parametrize(
    ("encoder", "ends"),
    [
        (ConvNeXtV2(LAYOUT, rngs=nnx.Rngs(0)), (0, 2)),
        (ViT(TOKENS, rngs=nnx.Rngs(0)), tuple(end - 1 for end in TOKENS.ends)),
    ],
    ids=["convnext", "vit"],
)
def test_a_stage_is_its_last_block(encoder, ends) -> None:
    images = np.random.default_rng(0).normal(size=(3, 16, 16, 1)).astype(np.float32)
    blocks, config = ByBlock(encoder), block_config(encoder.config)
    every = tuple(range(1, len(config.widths) + 1))
    found = embed(blocks, images, stages=every)
    stages = embed(encoder, images, stages=range(1, len(ends) + 1))
    names = np.array(layer_names(blocks.config, every))
    assert len(names) == found.shape[1]
    of_ends = np.concatenate([found[:, names == f"block{end + 1}"] for end in ends], axis=1)
    np.testing.assert_allclose(of_ends, stages, atol=1e-5)
    # The last block passes the final norm, as the embedding does; others differ from it.
    if isinstance(encoder, ConvNeXtV2):  # a ViT's embedding is the class token, no mean of patches
        last = embed(encoder, images, stages=(len(ends),))
        np.testing.assert_allclose(found[:, names == f"block{len(every)}"], last, atol=1e-5)
    assert not np.allclose(found[:, names == "block2"], found[:, names == f"block{len(every)}"])


def test_blocks_of_a_function_are_refused() -> None:
    with pytest.raises(InputError, match=r"blocks: those of a ConvNeXt V2 or a ViT are known"):
        block_config(FunctionConfig())
