"""A disk that is too small for what a run leaves is refused before the first slow stage."""

from __future__ import annotations

import importlib
import os
import subprocess
from collections import namedtuple
from pathlib import Path
from typing import Any

import pytest
import tyro
from flax import nnx

import encoders
from experiments.common.outlook import check_room
from lens.cohort import write_phantoms
from lens.errors import InputError

Usage = namedtuple("Usage", ["total", "used", "free"])


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("phantoms")
    config = encoders.ConvNeXtV2Config(depths=(1,), widths=(8,), strides=())
    for seed, name in enumerate(("pre", "ft")):
        encoders.save(folder / name, encoders.ConvNeXtV2(config, rngs=nnx.Rngs(seed)))
    return write_phantoms(folder, 12, 0, progress=False)


def words(job: str, manifest: Path, out: Path) -> list[str]:
    pre, ft = manifest.parent / "pre", manifest.parent / "ft"
    common = f"--cohort {manifest}" + ("" if job == "radiomics" else " --shape 16 24 24")
    common += " --spacing 2 2 3"
    each = {
        "radiomics": f"--out {out}/R.csv",
        "embed": f"--encoder {pre} --out {out}/E.npz",
        "pretrain": f"--init {pre} --out {out} --patch 8",
        "finetune": f"--init {pre} --out {out} --task regression --label volume_ml",
        "sweep": f"--encoder-pre {pre} --encoder-ft cls={ft} --out {out} --folds 2",
    }
    return f"{common} {each[job]}".split()


@pytest.mark.parametrize("job", ["radiomics", "embed", "pretrain", "finetune", "sweep"])
def test_every_job_compares_its_estimate_with_what_is_free(
    job: str, phantoms: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: Any, **__: Any) -> Any:
        pytest.fail("the first slow stage was reached")

    monkeypatch.setattr("lens.radiomics.cohort_features.extract_cohort", never)
    monkeypatch.setattr("encoders.cohort_embeddings.embed_cohort", never)
    monkeypatch.setattr("encoders.volumes.cache_cohort", never)
    module = importlib.import_module(f"experiments.{job}")
    config = tyro.cli(module.Config, args=words(job, phantoms, tmp_path / "run"))
    monkeypatch.setattr("shutil.disk_usage", lambda path: Usage(1e6, 1e6, 100.0))
    with pytest.raises(
        InputError, match=r"about [\d.]+ (bytes|[kM]B) are needed .* 100 bytes are free; m"
    ):
        module.job(config)
    assert not (tmp_path / "run").exists() or not list((tmp_path / "run").iterdir())
    monkeypatch.setattr("shutil.disk_usage", lambda path: Usage(1e12, 0, 1e12))
    with pytest.raises(pytest.fail.Exception, match="first slow stage"):
        module.job(config)


def test_folders_of_one_disk_share_it_and_what_is_written_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda path: Usage(1000, 0, 1000))
    out, cache = tmp_path / "out", tmp_path / "cache"
    check_room([(out, "--out", 1000.0)])
    needs = [(out, "--out", 600.0), (cache, "--cache", 700.0)]
    with pytest.raises(InputError, match=f"{cache}: about 1.3 kB .* disk .--out or --cache."):
        check_room(needs)
    cache.mkdir()
    (cache / "volume").write_bytes(bytes(299))
    with pytest.raises(InputError, match=r"1\.0 kB are needed"):
        check_room(needs)
    (cache / "volume").write_bytes(bytes(300))
    check_room(needs)


def test_a_small_disk_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    if os.geteuid() or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting a small disk is not allowed here")
    try:
        check_room([(folder / "run", "--out", 0.9e6)])
        with pytest.raises(
            InputError, match=r"about 2\.0 MB are needed on this disk and 1\.0 MB are"
        ):
            check_room([(folder / "run", "--out", 2e6)])
    finally:
        subprocess.run(["umount", str(folder)], check=True)
