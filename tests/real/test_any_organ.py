"""Any organ, modality and encoder, by the jobs: brain MR, breast ultrasound, CT and prostate MR.

Expected features are those that PyRadiomics gives when it is called on the files as they lie.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from types import ModuleType

import numpy as np
import pandas as pd
import pytest
import SimpleITK as sitk
from flax import nnx

import encoders
from experiments import embed, prepare, radiomics, sweep
from lens.cohort import read_case, read_manifest
from tests.command_line import started
from tests.pictures import svg_alone
from tests.radiomics.phantoms import direct, ellipsoid, texture

PATIENTS = 14
FEW = """
imageType:
  Original: {}
setting:
  binCount: 16
featureClass:
  firstorder: [Mean, Median, Entropy, Skewness, Minimum]
  glcm: [Idm, Contrast]
"""
"""Parameters of a table that is made in seconds; the packaged ones are compared on one patient."""

SMALL = ["--folds", "0", "--hidden", "4", "--epochs", "5", "--l1", "1e-6", "--l2", "1e-5",
         "--bootstraps", "20", "--flips", "100"]  # fmt: skip

CODE = """
import torch


def network(seed, channels=1, flat=False):
    torch.manual_seed(seed)
    size = (1, 8, 8) if flat else (4, 8, 8)
    net = torch.nn.Sequential(torch.nn.Conv3d(channels, 8, size, stride=size), torch.nn.GELU())

    def encode(volumes):  # (n, D, H, W, C)
        return net.eval()(torch.from_numpy(volumes).movedim(-1, 1)).movedim(1, -1)

    encode.cache_key = [seed, channels, flat]
    return encode


def pre():
    return network(0)


def ft():
    return network(1)


def flat_pre():
    return network(0, flat=True)


def flat_ft():
    return network(1, flat=True)


def three_pre():
    return network(0, channels=3)


def three_ft():
    return network(1, channels=3)
"""


@pytest.fixture(autouse=True)
def pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    svg_alone(monkeypatch)


@dataclass(frozen=True)
class User:
    """Someone with a folder, who starts jobs.

    Attributes:
        folder: of everything.
        monkeypatch: of the test.
        shape: of the encoders' input.
        flags: of every job that reads images.
        flat: images are of a single slice.
    """

    folder: Path
    monkeypatch: pytest.MonkeyPatch
    shape: tuple[int, int, int]
    flags: tuple[object, ...] = ()
    flat: bool = False

    def job(self, module: ModuleType, *words: object) -> int:
        return started(module, self.monkeypatch, *map(str, words))

    @property
    def cohort(self) -> Path:
        return self.folder / "cohort.csv"

    def code(self) -> str:
        """Torch in a module that can be imported, of a name of its own; gives the name."""
        name = f"networks_{self.folder.name}"
        (self.folder / f"{name}.py").write_text(CODE)
        self.monkeypatch.syspath_prepend(str(self.folder))
        return name

    def features(self) -> pd.DataFrame:
        """The radiomics table of all patients, of few features, from a checked cohort."""
        report = self.folder / "checked" / "geometry.csv"
        assert (
            self.job(prepare, "check", "--cohort", self.cohort, "--out", report, *self.flags) == 0
        )
        assert not pd.read_csv(report)["verdict"].eq("refused").any()
        few, out = self.folder / "few.yaml", self.folder / "R.csv"
        few.write_text(
            FEW.replace("  binCount", "  force2D: true\n  binCount") if self.flat else FEW
        )
        images = ["--cohort", self.cohort, "--workers", 1, *self.flags]
        assert self.job(radiomics, *images, "--parameters", few, "--out", out) == 0
        return pd.read_csv(out, index_col="patient_id", dtype={"patient_id": str})

    def packaged_features(self) -> pd.Series:
        """The first patient's, with the parameters that come with the package."""
        one, out = self.folder / "one.csv", self.folder / "one" / "R.csv"
        pd.read_csv(self.cohort, dtype=str).head(1).to_csv(one, index=False)
        images = ["--cohort", one, "--workers", 1, *self.flags]
        assert self.job(radiomics, *images, "--out", out) == 0
        return pd.read_csv(out, index_col="patient_id", dtype={"patient_id": str}).iloc[0]

    def compared(self, region: str, tasks: tuple[str, ...] = ("own",)) -> tuple[pd.DataFrame, str]:
        """Embeddings of checkpoints and torch code, and the main job on them and the table.

        Args:
            region: to pool in by the checkpoints.
            tasks: of the main job: the checkpoints, ``own``, and the code, ``torch``.

        Returns:
            The verdict tables of the tasks, and the report's text.
        """
        layout = encoders.ConvNeXtV2Config(
            dims=2 if self.flat else 3, in_channels=1, depths=(1, 1, 1, 1), widths=(4, 4, 8, 8)
        )
        code, words = self.code(), []
        for seed, name in enumerate(("pre", "ft")):
            own = self.folder / f"checkpoint-{name}"
            encoders.save(own, encoders.ConvNeXtV2(layout, rngs=nnx.Rngs(seed)))
            function = f"{code}:{'flat_' if self.flat else ''}{name}"
            for task, encoder, pool in (("own", own, region), ("torch", function, "global")):
                out = self.folder / f"{task}-{name}.npz"
                shown = ["--shape", *self.shape, "--pool", pool, *self.flags]
                images = ["--cohort", self.cohort, "--encoder", encoder, *shown]
                assert self.job(embed, *images, "--out", out) == 0
                with np.load(out) as rows:
                    assert rows["embeddings"].shape == (PATIENTS, 8)
                    assert np.isfinite(rows["embeddings"]).all()
                    assert (rows["embeddings"].std(axis=0) > 0).all()
                if task in tasks:
                    words += [f"--{name}", f"{task}={out}"]
        run = self.folder / "run"
        tables = [*words, "--radiomics", self.folder / "R.csv"]
        assert self.job(sweep, *tables, *SMALL, "--out", run) == 0
        found = [pd.read_parquet(run / task / "features.parquet") for task in tasks]
        return pd.concat(found), text_of(run)


def text_of(run: Path) -> str:
    """A report page without pictures, scripts and the paper's title, in small letters."""
    page = (run / "report.html").read_text(encoding="utf-8")
    page = re.sub(r"<(script|style)[^>]*>.*?</\1>", "", page, flags=re.DOTALL)
    page = re.sub(r"base64,[A-Za-z0-9+/=]+", "", page).lower()
    return page.replace("a radiomic lens on prostate foundation model representations", "")


def agree(ours: pd.Series, region: str, theirs: dict[str, float], *, at_least: int) -> None:
    """Every feature of the original image that a direct call gives, to 1e-6. Filtered images repeat
    the edge of the image where PyRadiomics mixes in the opposite one."""
    names = [name for name in theirs if name.startswith("original_")]
    assert len(names) >= at_least
    for name in names:
        assert ours[f"{region}.{name}"] == pytest.approx(theirs[name], rel=1e-6, abs=1e-9), name


def packaged(name: str) -> str:
    return (files("lens.radiomics") / name).read_text(encoding="utf-8")


def like(array: np.ndarray, image: sitk.Image) -> sitk.Image:
    made = sitk.GetImageFromArray(array)
    made.CopyInformation(image)
    return made


PROSTATE = re.compile(r"prostat|\bglands?\b|\bt2w?\b|\badc\b|\bdwi\b|pi-?rads")
"""Words that no page on another organ has."""


def test_brain_mr_with_two_regions_in_one_label_file(
    real_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    source, task = real_data / "hippocampus", tmp_path / "Task04"
    names = {d: {p.name for p in (source / d).iterdir()} for d in ("images", "labels")}
    alone = names["images"] ^ names["labels"]
    some = {*sorted(names["images"] & names["labels"])[:PATIENTS], *alone}
    for folder, there in names.items():
        (task / folder).mkdir(parents=True)
        for name in some & there:
            (task / folder / name).symlink_to(source / folder / name)
    said = ["--modalities", "mr", "--label", "anterior=1", "posterior=2"]
    spacing = ("--spacing", 1, 1, 1)
    user = User(tmp_path, monkeypatch, (32, 64, 64), (*said[2:], *spacing))
    # Files without their partner are named, and the exit code says so.
    assert user.job(prepare, "decathlon", task, *said, "--out", user.cohort) == 3
    told, failures = capsys.readouterr(), pd.read_csv(tmp_path / "failures.csv")
    assert set(failures["patient_id"] + ".nii.gz") == alone
    assert len(alone) == 3
    assert all(name in told.err for name in alone)
    assert "--label anterior=1 posterior=2" in told.out
    assert len(pd.read_csv(user.cohort)) == PATIENTS

    regions = {"anterior": 1, "posterior": 2}
    table, one = user.features(), user.packaged_features()
    assert {str(c).rsplit(".", 1)[0] for c in table} == {"mr.anterior", "mr.posterior"}
    for patient in table.index[[0, -1]]:
        image = sitk.ReadImage(str(source / "images" / f"{patient}.nii.gz"))
        labels = sitk.ReadImage(str(source / "labels" / f"{patient}.nii.gz"))
        for roi, value in regions.items():
            theirs = direct(image, labels == value, tmp_path / "few.yaml")
            agree(table.loc[patient], f"mr.{roi}", theirs, at_least=7)
    # Arbitrary units: standard scores over the box of both regions with 10 mm on every side.
    patient = str(one.name)
    image = sitk.ReadImage(str(source / "images" / f"{patient}.nii.gz"))
    labels = sitk.ReadImage(str(source / "labels" / f"{patient}.nii.gz"))
    voxels = sitk.GetArrayFromImage(image).astype(float)
    box = np.argwhere(sitk.GetArrayFromImage(labels) > 0)
    near = voxels[tuple(map(slice, np.maximum(box.min(0) - 10, 0), box.max(0) + 11))]
    near = near[near != 0]
    scores = like(100 * np.clip((voxels - near.mean()) / near.std(), -3, 3), image)
    plain = tmp_path / "mr.yaml"
    plain.write_text(packaged("mr.yaml").replace("normalize: true", "normalize: false"))
    for roi, value in regions.items():
        agree(one, f"mr.{roi}", direct(scores, labels == value, plain), at_least=90)

    features, page = user.compared("posterior", ("own", "torch"))
    assert set(features["modality"]) == {"mr"}
    assert set(features["roi"]) == set(regions)
    assert all(f"mr {roi}" in page for roi in regions)
    assert not PROSTATE.search(page)


def test_breast_ultrasound_pictures(
    real_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    data = real_data / "busi"
    table = pd.read_csv(data / "cases.csv")
    some = table.groupby("diagnosis").head(PATIENTS // 2)
    some = some[["patient_id", "image", "mask", "diagnosis"]].set_index("patient_id")
    for column in ("image", "mask"):
        some[column] = [str(data / cell) for cell in some[column]]
    user = User(tmp_path, monkeypatch, (1, 256, 256), flat=True)
    some.to_csv(user.cohort)
    table, one = user.features(), user.packaged_features()
    assert "2D images: image (8-bit); regions: mask" in capsys.readouterr().err

    def slices(patient: str) -> list[sitk.Image]:
        picture = sitk.ReadImage(some.loc[patient, "image"])
        outline = sitk.ReadImage(some.loc[patient, "mask"]) > 0
        return [sitk.JoinSeries(each) for each in (picture, outline)]

    for patient in table.index[[0, -1]]:
        theirs = direct(*slices(patient), tmp_path / "few.yaml")
        agree(table.loc[patient], "image.mask", theirs, at_least=7)
    theirs = direct(*slices(str(one.name)), Path(str(files("lens.radiomics") / "8-bit-2d.yaml")))
    assert any("_shape2D_" in name for name in theirs)
    agree(one, "image.mask", theirs, at_least=100)

    features, page = user.compared("mask")
    assert set(features["modality"] + "." + features["roi"]) == {"image.mask"}
    assert "image mask" in page
    assert not PROSTATE.search(page)


def test_a_ct_phantom(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A tumour in a liver in soft tissue, in a round field of view whose outside is padding."""
    rows = []
    for patient in range(PATIENTS):
        tissue = texture(patient, mean=40.0, sd=15.0)
        liver, tumour = ellipsoid(radii=(7, 10, 9)), ellipsoid(radii=(4, 5 + patient % 3, 5))
        tissue[liver > 0] += 60
        tissue[tumour > 0] += 5 * patient
        y, x = np.indices(tissue.shape[1:]) - 14
        tissue[:, np.hypot(y, x) > 13] = -2000 if patient % 2 else -1024
        row = {"patient_id": f"P{patient:02d}"}
        arrays = {"ct": tissue.astype(np.int16), "liver": liver, "tumour": tumour}
        for name, array in arrays.items():
            row[name] = f"{row['patient_id']}_{name}.nii.gz"
            made = sitk.GetImageFromArray(array)
            made.SetSpacing((1.0, 1.0, 2.0))
            sitk.WriteImage(made, tmp_path / row[name])
        rows.append(row)
    user = User(tmp_path, monkeypatch, (16, 32, 32), ("--spacing", 1, 1, 2))
    pd.DataFrame(rows).to_csv(user.cohort, index=False)
    table, one = user.features(), user.packaged_features()
    assert {str(c).rsplit(".", 1)[0] for c in table} == {"ct.liver", "ct.tumour"}
    for patient, found, file in [
        (table.index[3], table.iloc[3], tmp_path / "few.yaml"),
        (one.name, one, Path(str(files("lens.radiomics") / "ct.yaml"))),
    ]:
        ct, *masks = (
            sitk.ReadImage(str(tmp_path / f"{patient}_{name}.nii.gz"))
            for name in ("ct", "liver", "tumour")
        )
        for roi, mask in zip(("liver", "tumour"), masks, strict=True):
            agree(
                found, f"ct.{roi}", direct(ct, mask, file), at_least=7 if found is not one else 90
            )
    # The planted contrast, in Hounsfield units.
    assert np.polyfit(range(PATIENTS), table["ct.tumour.original_firstorder_Mean"], 1)[0] == (
        pytest.approx(5, abs=1)
    )
    cohort = read_manifest(user.cohort)
    for files_of in cohort.cases[:2]:
        case = read_case(files_of, spacing_mm=(0.7, 0.7, 2.0))
        voxels = sitk.GetArrayFromImage(case.images["ct"])
        assert np.all((voxels == -1024) | (voxels > -60)), "no tissue is averaged with padding"

    features, page = user.compared("tumour")
    assert set(features["modality"] + "." + features["roi"]) == {"ct.liver", "ct.tumour"}
    assert "ct liver" in page
    assert "ct tumour" in page
    assert not PROSTATE.search(page)


def test_prostate_mr_from_images_to_the_report(
    real_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Real masks and labels, simulated tissue, torch code as encoders: the main job by itself."""
    masks = tmp_path / "masks.csv"
    user = User(tmp_path, monkeypatch, (16, 32, 32))
    labels = real_data / "picai_labels"
    assert user.job(prepare, "picai", "--labels", labels, "--out", masks) == 0
    pd.read_csv(masks, dtype=str).head(PATIENTS).to_csv(masks, index=False)
    out = ("--out", tmp_path / "phantoms")
    assert user.job(prepare, "phantoms", "--cohort", masks, "--spacing", 2, *out) == 0
    code = user.code()
    (tmp_path / "few.yaml").write_text(FEW)
    words = [
        "--cohort",
        tmp_path / "phantoms" / "cohort.csv",
        "--parameters",
        tmp_path / "few.yaml",
    ]
    words += ["--encoder-pre", f"{code}:three_pre", "--encoder-ft", f"cls={code}:three_ft"]
    words += ["--spacing", 2, 2, 3, "--shape", *user.shape, "--rois", "gland", "--workers", 1]
    run = tmp_path / "run"
    assert user.job(sweep, *words, *SMALL, "--out", run) == 0
    features = pd.read_parquet(run / "cls" / "features.parquet")
    assert set(features["modality"]) == {"t2", "dwi", "adc"}
    assert set(features["roi"]) == {"gland"}
    assert len(np.load(run / "embeddings" / "cls.npz")["patient_id"]) == PATIENTS
    assert "of t2, dwi, adc in gland" in text_of(run)
