"""Small datasets in the layouts that tools write. Files of images hold one byte."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.cohort.archives import touch

BRAIN = {
    "channel_names": {"0": "T1w", "1": "FLAIR"},
    "labels": {"background": 0, "whole tumor": [1, 2, 3], "core": [2, 3], "enhancing": 3},
    "regions_class_order": [1, 2, 3],
    "numTraining": 2,
    "file_ending": ".nii.gz",
}


def nnunet(root: Path, content: dict[str, Any] | None = None) -> Path:
    """Two training cases and a test case of two channels."""
    for case in ("BRATS_001", "BRATS_002"):
        for channel in ("0000", "0001"):
            touch(root / "imagesTr" / f"{case}_{channel}.nii.gz")
        touch(root / "labelsTr" / f"{case}.nii.gz")
    for channel in ("0000", "0001"):
        touch(root / "imagesTs" / f"BRATS_003_{channel}.nii.gz")
    (root / "dataset.json").write_text(json.dumps(content or BRAIN))
    return root


def bids(root: Path) -> Path:
    """Two subjects, one of them with two sessions, their masks among the derivatives."""
    for subject, session in (("01", "pre"), ("01", "post"), ("02", "pre")):
        place, name = f"sub-{subject}/ses-{session}/anat", f"sub-{subject}_ses-{session}"
        for suffix in ("T1w", "FLAIR"):
            touch(root / place / f"{name}_{suffix}.nii.gz")
            touch(root / place / f"{name}_{suffix}.json")
        mask = f"{name}_space-T1w_desc-lesion_mask.nii.gz"
        touch(root / "derivatives" / "manual" / place / mask)
        touch(root / "derivatives" / "prep" / place / f"{name}_space-MNI152_label-GM_mask.nii.gz")
    touch(root / "dataset_description.json").write_text('{"Name": "x", "BIDSVersion": "1.9.0"}')
    rows = "participant_id\tage\tgrade\nsub-01\t034\tII\nsub-02\tn/a\tIV\n"
    touch(root / "participants.tsv").write_text(rows)
    rows = "session_id\tweight\nses-pre\t70\nses-post\tn/a\n"
    touch(root / "sub-01" / "sub-01_sessions.tsv").write_text(rows)
    return root


def segmented(root: Path, table: str) -> Path:
    """A subject whose mask has values that a table names."""
    touch(root / "sub-01/anat/sub-01_T1w.nii.gz")
    touch(root / "derivatives/seg/sub-01/anat/sub-01_desc-tissue_dseg.nii.gz")
    touch(root / "derivatives/seg/desc-tissue_dseg.tsv").write_text(table)
    return root
