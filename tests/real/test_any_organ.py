"""Other organs and modalities, end to end: brain MR, breast ultrasound, and a CT phantom.

Each is read and checked, measured (as PyRadiomics itself measures it), embedded by an encoder of
ours, compared and reported.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from importlib.resources import files
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import SimpleITK as sitk
from flax import nnx

import encoders
import lens
from experiments.embed import Config as EmbedConfig
from experiments.embed import job as embed
from experiments.prepare import Check
from experiments.prepare import job as prepare
from experiments.radiomics import Config as RadiomicsConfig
from experiments.radiomics import job as radiomics
from lens.cohort import parse_labels, read_case, read_manifest
from lens.cohort.columns import Declared
from lens.cohort.intensities import scaling
from lens.radiomics.extract import extract_case, normalise
from lens.radiomics.parameters import load_parameters
from tests.radiomics.phantoms import direct, ellipsoid, texture

FEW = """
imageType:
  Original: {}
setting:
  binCount: 16
featureClass:
  firstorder: [Mean, Median, Entropy, Skewness]
  glcm: [Idm, Contrast]
"""
"""Parameters of a table that is made in seconds; the packaged ones are compared on one patient."""


def end_to_end(
    folder: Path,
    cohort: Path,
    *,
    flags: dict[str, tuple[str, ...]],
    columns: Sequence[str],
    grid: dict[str, tuple],
    flat: bool = False,
) -> pd.DataFrame:
    """Check, radiomics, embeddings before and after, comparison and report; gives the features."""
    few = folder / "few.yaml"
    few.write_text(FEW.replace("  binCount", "  force2D: true\n  binCount") if flat else FEW)
    report = Check(cohort, folder / "geometry.csv", spacing=grid["spacing"], **flags)
    assert prepare(report) == 0
    table = folder / "R.csv"
    config = RadiomicsConfig(
        cohort, table, parameters=(str(few),), spacing=grid["spacing"], workers=1, **flags
    )
    assert radiomics(config) == 0
    found = pd.read_csv(table)
    assert sorted({name.rsplit(".", 1)[0] for name in found.columns[1:]}) == sorted(columns)
    layout = encoders.ConvNeXtV2Config.named(
        "atto", depths=(1, 1, 1, 1), in_channels=1, dims=2 if flat else 3
    )
    region = columns[0].split(".")[1]
    for seed, name in enumerate(("pre", "ft")):
        encoder = encoders.ConvNeXtV2(layout, rngs=nnx.Rngs(seed))
        encoders.save(folder / name, encoder, {"origin": "random"})
        config = EmbedConfig(
            cohort, folder / name, folder / f"{name}.npz", shape=grid["shape"],
            spacing=grid["spacing"], pool=region, batch_size=4, **flags,
        )  # fmt: skip
        assert embed(config) == 0
    compared = lens.compare(
        folder / "pre.npz", {"tuned": folder / "ft.npz"}, table,
        folds=0, epochs=5, bootstraps=20, hidden=4, flips=100,
    )  # fmt: skip
    page = compared.report(folder / "run")
    assert columns[0] in Path(page).read_text(encoding="utf-8")
    return found


def test_brain_mr_with_two_regions_in_one_label_file(real_data: Path, tmp_path: Path) -> None:
    data = real_data / "hippocampus"
    images, labels = ({p.name: p for p in (data / d).iterdir()} for d in ("images", "labels"))
    without = set(images) ^ set(labels)
    assert len(without) == 3
    names = sorted(set(images) | set(labels))[:12] + sorted(without)
    rows = [(n, data / "images" / n, data / "labels" / n) for n in dict.fromkeys(names)]
    manifest = tmp_path / "all.csv"
    pd.DataFrame(rows, columns=["patient_id", "t1", "mask"]).to_csv(manifest, index=False)
    label = ("anterior=1", "posterior=2")
    values = parse_labels(label)
    cohort = read_manifest(manifest, declared=Declared(labels=values))
    assert cohort.rois == ("anterior", "posterior")
    # Files without their partner are set aside by name, not passed over.
    assert {error.patient_id for error in cohort.set_aside} == without
    assert {error.reason.split(" file")[0] for error in cohort.set_aside} <= {"the t1", "the mask"}

    case = read_case(cohort.cases[0], spacing_mm=(1.0, 1.0, 1.0), labels=values)
    parameters = load_parameters(kinds=cohort.kinds)
    ours = extract_case(case, parameters)
    scale = scaling(case.images["t1"], case.masks.values())
    seen = normalise(case.images["t1"], parameters["t1"], scale)
    plain = tmp_path / "mr.yaml"
    text = (files("lens.radiomics") / "mr.yaml").read_text()
    plain.write_text(text.replace("normalize: true", "normalize: false"))
    agree(ours, "t1.posterior", direct(seen, case.masks["posterior"], plain), original=True)

    usable = pd.DataFrame(
        [row for row in rows if row[0] not in without], columns=["patient_id", "t1", "mask"]
    )
    usable.to_csv(tmp_path / "cohort.csv", index=False)
    end_to_end(
        tmp_path, tmp_path / "cohort.csv", flags={"label": label},
        columns=["t1.anterior", "t1.posterior"],
        grid={"spacing": (1.0, 1.0, 1.0), "shape": (32, 64, 64)},
    )  # fmt: skip


def test_breast_ultrasound_pictures(real_data: Path, tmp_path: Path) -> None:
    data = real_data / "busi"
    table = pd.read_csv(data / "cases.csv")
    some = table.groupby("diagnosis").head(6)[["patient_id", "image", "mask", "diagnosis"]]
    for column in ("image", "mask"):
        some[column] = [str(data / cell) for cell in some[column]]
    path = tmp_path / "cohort.csv"
    some.to_csv(path, index=False)
    cohort = read_manifest(path)
    assert cohort.flat
    assert str(cohort.columns) == "2D images: image (8-bit); regions: mask"
    case = read_case(cohort.cases[0], spacing_mm=(1.0, 1.0, 1.0))
    ours = extract_case(case, load_parameters(kinds=cohort.kinds, flat=True))
    packaged = files("lens.radiomics") / "8-bit-2d.yaml"
    theirs = direct(case.images["image"], case.masks["mask"], Path(str(packaged)))
    assert any("_shape2D_" in name for name in theirs)
    agree(ours, "image.mask", theirs, original=True)
    end_to_end(
        tmp_path, path, flags={}, columns=["image.mask"], flat=True,
        grid={"spacing": (1.0, 1.0, 1.0), "shape": (1, 256, 256)},
    )  # fmt: skip


def test_a_ct_phantom(tmp_path: Path) -> None:
    """A tumour in soft tissue, in a round field of view whose outside is padding."""
    rows = []
    for patient in range(12):
        tissue = texture(patient, mean=40.0, sd=15.0)
        tumour = ellipsoid(radii=(4, 6 + patient % 3, 6))
        tissue[tumour > 0] += 5 * patient
        y, x = np.indices(tissue.shape[1:]) - 14
        tissue[:, np.hypot(y, x) > 13] = -2048
        row = {"patient_id": f"P{patient}"}
        for name, array in (("ct", tissue.astype(np.int16)), ("tumour", tumour)):
            row[name] = f"P{patient}_{name}.nii.gz"
            made = sitk.GetImageFromArray(array)
            made.SetSpacing((1.0, 1.0, 2.0))
            sitk.WriteImage(made, tmp_path / row[name])
        rows.append(row)
    path = tmp_path / "cohort.csv"
    pd.DataFrame(rows).to_csv(path, index=False)
    cohort = read_manifest(path)
    assert (cohort.modalities, cohort.rois, cohort.kinds) == (("ct",), ("tumour",), {"ct": "ct"})
    case = read_case(cohort.cases[3], spacing_mm=(0.7, 0.7, 2.0))
    voxels = sitk.GetArrayFromImage(case.images["ct"])
    assert np.all((voxels == -1024) | (voxels > -60)), "no tissue is averaged with padding"
    ours = extract_case(case, load_parameters(kinds=cohort.kinds))
    packaged = files("lens.radiomics") / "ct.yaml"
    theirs = direct(case.images["ct"], case.masks["tumour"], Path(str(packaged)))
    agree(ours, "ct.tumour", theirs, original=True)
    table = end_to_end(
        tmp_path, path, flags={"modalities": ("ct",), "rois": ("tumour",)},
        columns=["ct.tumour"], grid={"spacing": (1.0, 1.0, 2.0), "shape": (32, 32, 32)},
    )  # fmt: skip
    # The planted contrast, in Hounsfield units.
    means = table.sort_values("patient_id", key=lambda ids: ids.str[1:].astype(int))
    assert np.polyfit(range(12), means["ct.tumour.original_firstorder_Mean"], 1)[0] == (
        pytest.approx(5, abs=1)
    )
    blank = replace(cohort.cases[0], masks={})
    assert read_case(blank, spacing_mm=(1.0, 1.0, 2.0)).masks == {}


def agree(ours: dict[str, float], region: str, theirs: dict[str, float], *, original: bool) -> None:
    """Every feature that a direct call gives, to 1e-6; of filtered images that repeat the edge
    where PyRadiomics mixes in the opposite one, only those that the edge does not reach."""
    names = [name for name in theirs if not original or name.startswith("original_")]
    assert len(names) > 80
    for name in names:
        assert ours[f"{region}.{name}"] == pytest.approx(theirs[name], rel=1e-6, abs=1e-9), name
