"""Small archives in the layouts that hospitals and challenges publish. Files hold one byte."""

from __future__ import annotations

from pathlib import Path

MARKSHEET = (
    "patient_id,study_id,mri_date,patient_age,psa,psad,prostate_volume,histopath_type,"
    "lesion_PIRADS,lesion_GS,lesion_ISUP,case_ISUP,case_csPCa,center\n"
)

ROWS = (
    '10000,1000000,2019-07-02,73,7.7,0.14,55,MRBx,"4,2","4+3,N/A","3",3,YES,PCNN\n',
    "10001,1000001,2016-05-27,64,8.7,0.09,102,,2,,,0,NO,RUMC\n",
    "10001,1000002,2018-05-27,66,9,0.09,104,,,,,0,NO,RUMC\n",
)

WHOLE = "anatomical_delineations/whole_gland/AI/Bosma22b"
ZONAL = "anatomical_delineations/zonal_pz_tz/AI/Yuan23"
HUMAN = "csPCa_lesion_delineations/human_expert/resampled"
AUTOMATIC = "csPCa_lesion_delineations/AI/Bosma22a"

STUDIES = ("10000_1000000", "10001_1000001", "10001_1000002")


def touch(file: Path) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(b"x")
    return file


def picai(root: Path, rows: tuple[str, ...] = ROWS, *, folds: bool = False) -> tuple[Path, Path]:
    """The images and labels of three studies of two patients as published."""
    images, labels = root / "images", root / "picai_labels"
    for number, study in enumerate(STUDIES):
        patient = study.split("_")[0]
        fold = f"picai_public_images_fold{number}/" if folds else ""
        for ending in ("t2w", "hbv", "adc", "sag", "cor"):
            touch(images / f"{fold}{patient}" / f"{study}_{ending}.mha")
        for folder in (WHOLE, ZONAL, AUTOMATIC):
            touch(labels / folder / f"{study}.nii.gz")
    touch(labels / HUMAN / f"{STUDIES[0]}.nii.gz")
    touch(labels / WHOLE / "README.md")
    sheet = touch(labels / "clinical_information" / "marksheet.csv")
    sheet.write_text(MARKSHEET + "".join(rows))
    return images, labels
