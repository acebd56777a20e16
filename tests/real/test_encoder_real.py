"""A real patient at full size through the tiny encoder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import jax
import numpy as np
import pytest
from flax import nnx

from encoders.cohort_embeddings import EmbeddingSettings, embed_cohort
from encoders.convnext import ConvNeXtV2, ConvNeXtV2Config
from lens.cohort import read_manifest


@pytest.fixture(autouse=True)
def compiled_as_users_do() -> Iterator[None]:
    """At full size running costs more than compiling."""
    name = "jax_disable_most_optimizations"
    before = jax.config.values[name]
    jax.config.update(name, False)
    yield
    jax.config.update(name, before)


def test_prostatex_patient_at_full_size(real_data: Path, tmp_path: Path):
    folder = real_data / "prostatex"
    files = {"t2": "t2w", "dwi": "hbv", "adc": "adc", "gland": "gland", "lesion": "lesion"}
    paths = [str(folder / f"ProstateX-0000_{name}.nii.gz") for name in files.values()]
    manifest = tmp_path / "cohort.csv"
    manifest.write_text(f"patient_id,{','.join(files)}\nProstateX-0000,{','.join(paths)}\n")
    encoder = ConvNeXtV2(ConvNeXtV2Config.named("tiny"), rngs=nnx.Rngs(0))
    settings = EmbeddingSettings(pool="gland", stages=(1, 2, 3, 4))
    result, errors = embed_cohort(read_manifest(manifest), encoder, settings=settings, batch_size=1)
    assert errors == ()
    assert result.patient_id == ("ProstateX-0000",)
    assert result.embeddings.shape == (1, 96 + 192 + 384 + 768)
    assert np.isfinite(result.embeddings).all()
    # A LayerNorm with its initial scale: mean 0 and variance 1 over the 768 numbers.
    last = result.embeddings[0, -768:]
    assert abs(last.mean()) < 1e-3
    assert abs(last.var() - 1) < 1e-2
