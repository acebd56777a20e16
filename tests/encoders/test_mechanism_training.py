"""The training of the study with a known mechanism, at the smallest size."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from flax import nnx

from benchmarks.mechanism_data import Volumes, glands, is_prepared, labels, prepare
from benchmarks.mechanism_files import pack, unpacked
from benchmarks.mechanism_train import Config, Judged, finetune_one, jobs, main
from encoders import ConvNeXtV2, ConvNeXtV2Config, save
from lens.cohort.factor_phantom import draw_masks, draw_volumes

GRID = {"shape": (16, 24, 24), "spacing_mm": (3.0, 3.0, 3.0)}


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Config:
    """Phantoms are drawn, and two random encoders stand for the start and the pre-trained one."""
    config = Config(
        folder=tmp_path_factory.mktemp("mechanism"), pretrain=2, finetune=21, judged=5,
        shape=GRID["shape"], spacing=GRID["spacing_mm"], depths=(1, 1, 1, 1), seeds=1, batch=5,
        probe_epochs=2, processes=1,
    )  # fmt: skip
    prepare(config.folder / "data", config.sizes, 1)
    layout = ConvNeXtV2Config(depths=(1, 1, 1, 1), widths=(4, 8, 8, 8), strides=config.strides)
    for seed, name in enumerate(("random", "pretrained")):
        encoder = ConvNeXtV2(layout, rngs=nnx.Rngs(seed), stem_bias=0.3)
        save(config.folder / name, encoder)
        Judged(config).keep(config.folder / f"embedded/{name}.npz", encoder, whole=True)
    return config


def test_the_sets_share_no_patient_and_hold_what_is_drawn(config: Config) -> None:
    data, sizes = config.folder / "data", config.sizes
    assert is_prepared(data, sizes)
    drawn = np.concatenate([sizes.rows(part) for part in ("pretrain", "finetune", "judged")])
    assert drawn.tolist() == [*range(28)]
    volumes, rows = Volumes(data, sizes, "judged"), sizes.rows("judged").tolist()
    np.testing.assert_array_equal(volumes[:], draw_volumes(rows, sizes.seed, **GRID))
    np.testing.assert_array_equal(volumes[np.int64(2)], np.asarray(volumes[[2]])[0])
    np.testing.assert_array_equal(
        glands(data, sizes, "judged"), draw_masks(rows, sizes.seed, **GRID)
    )
    assert labels(data, sizes, "judged")["patient_id"][0] == "factors-00023"
    assert volumes.row_key(0) != Volumes(data, sizes, "finetune").row_key(0)


def test_a_frozen_encoder_gives_the_embeddings_of_the_one_before(config: Config) -> None:
    volumes = Volumes(config.folder / "data", config.sizes, "finetune")
    finetune_one(config, volumes, Judged(config), "volume_ml", 0, "frozen")
    done = json.loads((config.folder / "runs/volume_ml-0-frozen.json").read_text())
    assert np.isfinite(done["score"])
    assert len(done["validation"]) == config.probe_epochs
    assert len(done["ranks"]) == 4
    pack(config.folder, config.folder / "packed", {}, {})
    with np.load(config.folder / "packed/mechanism.npz") as stored:
        found = unpacked(stored)
    np.testing.assert_array_equal(
        found["gland"]["volume_ml-0-frozen"], found["gland"]["pretrained"]
    )
    assert not np.allclose(found["gland"]["random"], found["gland"]["pretrained"])
    assert not np.allclose(found["gland"]["pretrained"], found["global"]["pretrained"])


def test_a_seed_is_finished_before_the_next_and_what_is_done_is_left_out(config: Config) -> None:
    two = replace(config, seeds=2, folder=config.folder / "elsewhere")
    every = jobs(two)
    assert len(every) == 2 * 16
    assert [seed for _, seed, _ in every] == [0] * 16 + [1] * 16
    assert [kind for _, _, kind in every[:5]] == ["full"] * 4 + ["permuted"]
    (two.folder / "runs").mkdir(parents=True)
    (two.folder / "runs/volume_ml-0-full.json").write_text("{}")
    assert jobs(two) == every[1:]


def test_no_fine_tuning_is_begun_where_no_time_is_left(
    config: Config, capsys: pytest.CaptureFixture[str]
) -> None:
    done = config.folder / "runs/lesion_grade-0-full.json"
    main(replace(config, labels=("lesion_grade",), minutes=0.0))
    assert "no time is left for lesion_grade-0-full" in capsys.readouterr().out
    assert not done.exists()
