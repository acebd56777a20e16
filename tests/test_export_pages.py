"""Every snippet of docs/export is run as a user copies it, on random weights of its library."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from encoders.sources import content_hash, header_of, open_encoder
from encoders.state_dicts import not_finite
from tests.documents import blocks

PAGES = Path(__file__).resolve().parents[1] / "docs" / "export"
SHAPE = (2, 32, 32)

MY_CODE = """
import torch

class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        conv = torch.nn.Conv3d
        layers = conv(3, 4, 3, padding=1), torch.nn.ReLU(), conv(4, 6, 2, 2)
        self.encoder = torch.nn.Sequential(*layers)
        self.head = torch.nn.Linear(6, 2)

    def forward(self, x):
        return self.head(self.encoder(x).mean((2, 3, 4)))
"""


def plain_torch(folder: Path) -> None:
    import torch

    (folder / "my_code.py").write_text(MY_CODE)
    space: dict = {}
    exec(MY_CODE, space)
    for seed, name in enumerate(("before", "after")):
        torch.manual_seed(seed)
        torch.save(space["Model"]().state_dict(), folder / f"{name}.pth")


def hugging_face(folder: Path) -> None:
    import torch
    import transformers

    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 32,
             "intermediate_size": 8, "patch_size": 16}  # fmt: skip
    for seed, name in enumerate(("before", "after")):
        torch.manual_seed(seed)
        transformers.ViTModel(transformers.ViTConfig(**sizes)).save_pretrained(folder / name)


def monai(folder: Path) -> None:
    import torch

    nets = importlib.import_module("monai.networks.nets")
    for seed, name in enumerate(("before", "after")):
        torch.manual_seed(seed)
        net = nets.SegResNet(spatial_dims=3, in_channels=3, out_channels=2, init_filters=8)
        torch.save(net.state_dict(), folder / f"{name}.pt")


def timm(folder: Path) -> None:
    import torch

    for name in ("before", "after"):
        net = importlib.import_module("timm").create_model("resnet18", num_classes=0)
        torch.save(net.state_dict(), folder / f"{name}.pth")


def open_clip(folder: Path) -> None:
    import torch

    for name in ("before", "after"):
        net = importlib.import_module("open_clip").create_model("ViT-B-32")
        torch.save(net.state_dict(), folder / f"{name}.pt")


def keras(folder: Path) -> None:
    library = importlib.import_module("keras")
    for name in ("before", "after"):
        image = library.Input((*SHAPE, 3))
        features = library.layers.Conv3D(4, 2, name="features")(image)
        pooled = library.layers.GlobalAveragePooling3D()(features)
        net = library.Model(image, library.layers.Dense(2)(pooled))
        net.save(folder / f"{name}.keras")


def nnunet(folder: Path) -> None:
    pytest.skip("a trained model of nnU-Net is needed; its library makes none without a dataset")


PREPARED: dict[str, tuple[str, Callable[[Path], None], int | None, bool]] = {
    "torch": ("torch", plain_torch, 6, True),
    "huggingface": ("transformers", hugging_face, 8, False),
    "monai": ("monai", monai, 64, True),
    "timm": ("timm", timm, 512, False),
    "open_clip": ("open_clip", open_clip, 512, False),
    "keras": ("keras", keras, 4, True),
    "nnunet": ("nnunetv2", nnunet, None, True),
}
"""Page -> library, what writes random weights, width of the embedding, whether it gives maps."""


def snippet(page: str) -> str:
    found = blocks(PAGES / f"{page}.md")
    snippets = [
        block.text for block in found if block.kind == "python" and "def load" in block.text
    ]
    assert len(snippets) == 1, "one snippet to copy"
    return snippets[0]


def test_every_page_is_run_and_listed() -> None:
    pages = {path.stem for path in PAGES.glob("*.md")} - {"README"}
    assert pages == set(PREPARED)
    index = (PAGES / "README.md").read_text("utf-8")
    assert all(f"({page}.md)" in index for page in pages)
    for page in pages:
        compile(snippet(page), page, "exec")


@pytest.mark.parametrize("page", PREPARED)
def test_the_snippet_gives_embeddings(page: str, tmp_path: Path, monkeypatch) -> None:
    library, prepare, width, maps = PREPARED[page]
    try:
        importlib.import_module(library)
    except Exception as error:  # a library may be there and not fit the others
        pytest.skip(f"{library} is not installed ({type(error).__name__})")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    prepare(tmp_path)
    shape = {"monai": (16, 32, 32), "open_clip": (1, 224, 224)}.get(page, SHAPE)
    (tmp_path / "encode.py").write_text(snippet(page))
    hashes, rows = set(), []
    volumes = np.random.default_rng(0).normal(size=(2, *shape, 3)).astype(np.float32)
    for name in ("before", "after"):
        source = Path(f"encode.py:{name}")
        assert header_of(source, shape, 3, regional=maps).config.features == width
        encoder = open_encoder(source)
        hashes.add(content_hash(source))
        masks = np.zeros((2, *shape), bool)
        masks[:, :, 4:9, 3:12] = True
        rows.append(encoder.embed(volumes, masks if maps else None))  # type: ignore[union-attr]
    assert len(hashes) == 2, "the two are told apart"
    assert not not_finite(np.stack(rows))
    assert np.abs(rows[0] - rows[1]).max() > 1e-4
