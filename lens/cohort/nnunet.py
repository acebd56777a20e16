"""A raw dataset of nnU-Net, of both versions of its format."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from lens.cohort.dataset_json import NAME, Dataset, read_dataset
from lens.cohort.prepared import Note, Prepared, one_of, visible, written_otherwise
from lens.errors import CaseError, InputError


def prepare_nnunet(
    root: Path, *, modalities: tuple[str, ...] = (), labels: tuple[str, ...] = ()
) -> Prepared:
    """Finds the cases of ``imagesTr/<case>_0000.nii.gz`` and ``labelsTr/<case>.nii.gz``.

    No image is opened. Cases of ``imagesTs`` are taken where ``labelsTs`` has their masks, as the
    test split; without masks they are left out with a note.

    Args:
        root: folder with ``dataset.json``.
        modalities, labels: as in `read_dataset`.

    Returns:
        Cases with a column per channel and one of masks: named as the region where there is one,
        otherwise ``mask``, of whose values ``flags`` makes the regions.

    Raises:
        InputError: as `read_dataset`, no training images, or a case of both parts.
    """
    dataset = read_dataset(root, modalities=modalities, labels=labels)
    if not (root / "imagesTr").is_dir():
        raise InputError(f"{root}: no folder imagesTr. Give the raw dataset, with {NAME}")
    rows, set_aside, notes = _part(root, "Tr", dataset)
    announced, there = dataset.content.get("numTraining"), len(rows) + len(set_aside)
    if isinstance(announced, int) and announced != there:
        notes.append(
            Note("", "", "numTraining", f"{NAME} announces {announced} cases", f"{there} are there")
        )
    if (root / "imagesTs").is_dir():
        tested, refused, more = _part(root, "Ts", dataset)
        notes += more
        _check_parts(root, rows, tested)
        if tested:
            rows = [row | {"split": "train"} for row in rows]
            rows += [row | {"split": "test"} for row in tested]
        set_aside += refused
    return Prepared(tuple(rows), tuple(set_aside), tuple(notes), dataset.flags)


def _check_parts(
    root: Path, rows: list[dict[str, str | Path]], tested: list[dict[str, str | Path]]
) -> None:
    """Refuses a name that a training and a test case share: ids of a manifest are of one case."""
    trained = {row["patient_id"] for row in rows}
    if both := [str(row["patient_id"]) for row in tested if row["patient_id"] in trained]:
        raise InputError(
            f"{root}: {len(both)} case(s) are in both imagesTr and imagesTs, with masks, such as "
            f"{both[0]}. Rename those of one folder if they are other patients, or move labelsTs "
            "elsewhere, without which test cases are left out"
        )


def _part(
    root: Path, part: str, dataset: Dataset
) -> tuple[list[dict[str, str | Path]], list[CaseError], list[Note]]:
    """Cases of the training or test part, those set aside, and notes."""
    images, masks = root / f"images{part}", root / f"labels{part}"
    notes: list[Note] = []
    found: dict[str, dict[int, Path]] = {}
    for file in visible(images):
        match = re.fullmatch(rf"(.+)_(\d{{4}}){re.escape(dataset.ending)}", file.name)
        if match and int(match[2]) < len(dataset.channels):
            found.setdefault(match[1], {})[int(match[2])] = file
            continue
        what = f"{images.name}/{file.name}: " + (
            f"channel {int(match[2])}, and {NAME} names {len(dataset.channels)}"
            if match
            else f"no <case>_0000{dataset.ending}"
        )
        notes.append(Note(match[1] if match else "", "", "images", what, "not taken"))
    drawn: dict[str, Path] = {}
    for file in visible(masks) if masks.is_dir() else ():
        if file.name.endswith(dataset.ending):
            drawn[file.name.removesuffix(dataset.ending)] = file
        else:
            what = f"{masks.name}/{file.name}: no <case>{dataset.ending}"
            notes.append(Note("", "", dataset.mask, what, "not taken"))
    rows, set_aside = [], []
    for case in sorted({*found, *drawn}):
        if part == "Ts" and case not in drawn:
            what = f"a test image without a mask in {masks.name}"
            what += _meant(case, masks, drawn.keys() - found.keys())
            notes.append(Note(case, "", dataset.mask, what, "left out"))
            continue
        try:
            rows.append(_row(case, found, drawn, images, masks, dataset))
        except CaseError as error:
            set_aside.append(error)
    return rows, set_aside, notes


def _row(
    case: str,
    found: dict[str, dict[int, Path]],
    drawn: dict[str, Path],
    images: Path,
    masks: Path,
    dataset: Dataset,
) -> dict[str, str | Path]:
    row: dict[str, str | Path] = {"patient_id": case}
    own = found.get(case, {})
    for number, name in enumerate(dataset.channels):
        file = one_of([own[number]] if number in own else [], case, name)
        if file is None:
            lone = {other for other in found.keys() - drawn.keys() if number in found[other]}
            raise CaseError(
                case,
                images / f"{case}_{number:04}{dataset.ending}",
                stage="read",
                reason=f"no {name} image (channel {number})" + _meant(case, images, lone),
                remedy="Add the file, or remove the other files of this case.",
            )
        row[name] = file
    file = one_of([drawn[case]] if case in drawn else [], case, dataset.mask)
    if file is None:
        raise CaseError(
            case,
            masks / f"{case}{dataset.ending}",
            stage="read",
            reason="an image without its mask" + _meant(case, masks, drawn.keys() - found.keys()),
            remedy="Add the mask, or remove the image.",
        )
    return row | {dataset.mask: file}


def _meant(case: str, folder: Path, others: Iterable[str]) -> str:
    """Names the case that is likely meant by a file without its partner."""
    other = written_otherwise(case, others)
    return f"; {folder.name} has {other}" if other else ""
