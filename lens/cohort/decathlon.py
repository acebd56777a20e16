"""A task of the Medical Segmentation Decathlon, or a folder named like one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import SimpleITK as sitk

from lens.cohort.dataset_json import NAME, Dataset, read_dataset
from lens.cohort.headers import HeaderFault, check_header
from lens.cohort.nifti_header import apart, nifti_header
from lens.cohort.prepared import Note, Prepared, one_of, visible, written_otherwise
from lens.errors import CaseError, InputError
from lens.files import atomic

FOLDERS = (("imagesTr", "labelsTr"), ("images", "labels"))
"""Folders of images and masks, where no list of pairs says."""


def prepare_decathlon(
    root: Path,
    volumes: Path,
    *,
    modalities: tuple[str, ...] = (),
    labels: tuple[str, ...] = (),
) -> Prepared:
    """Finds the pairs of images and masks that ``dataset.json`` lists.

    Without that file, with `modalities` and `labels` in its place, those of one name in
    ``imagesTr`` and ``labelsTr`` (or ``images`` and ``labels``). Files of several modalities, the
    fourth axis of one image, are written as a volume each; others are not opened.

    Args:
        root: folder of the task.
        volumes: folder for such volumes.
        modalities, labels: as in `read_dataset`.

    Returns:
        Cases with a column per modality and one of masks, as `prepare_nnunet` has them.

    Raises:
        InputError: as `read_dataset`, or a list of pairs that is none.
    """
    dataset = read_dataset(root, modalities=modalities, labels=labels)
    pairs = _listed(root, dataset) if dataset.content else _named(root, dataset)
    notes = [
        Note(_case(file, dataset), "", "images", f"{file.relative_to(root)}: not in {NAME}",
             "not taken")
        for file in (_unlisted(root, pairs) if dataset.content else [])
    ]  # fmt: skip
    tests = dataset.content.get("test")
    if isinstance(tests, list) and tests:
        first = f"{len(tests)} test image(s) without masks, such as {tests[0]}"
        notes.append(Note("", "", dataset.mask, first, "left out"))
    announced = dataset.content.get("numTraining")
    if isinstance(announced, int) and announced != len(pairs):
        what = f"{NAME} announces {announced} cases"
        notes.append(Note("", "", "numTraining", what, f"{len(pairs)} are listed"))
    rows, set_aside = [], []
    for case, (image, mask) in sorted(pairs.items()):
        try:
            _there(case, image, f"no image of the mask {mask.name}", "Add the image.")
            _there(case, mask, f"no mask of the image {image.name}", "Add the mask.")
            columns = _channels(case, image, dataset, volumes)
        except CaseError as error:
            set_aside.append(error)
            continue
        rows.append({"patient_id": case, **columns, dataset.mask: mask})
    return Prepared(tuple(rows), tuple(set_aside), tuple(notes), dataset.flags)


def _case(file: Path, dataset: Dataset) -> str:
    return file.name.removesuffix(dataset.ending)


def _listed(root: Path, dataset: Dataset) -> dict[str, tuple[Path, Path]]:
    """Case -> image and mask, of the list ``training``."""
    listed = dataset.content.get("training")
    if not isinstance(listed, list) or not listed:
        raise InputError(
            f"{root / NAME}: no list training of pairs image and label. Give the file as published"
        )
    pairs: dict[str, tuple[Path, Path]] = {}
    for number, pair in enumerate(listed, start=1):
        files = [pair.get(key) if isinstance(pair, dict) else None for key in ("image", "label")]
        if not all(isinstance(file, str) and file for file in files):
            raise InputError(
                f"{root / NAME}: entry {number} of training is {pair!r}, where a pair image and "
                "label is needed"
            )
        image, mask = (root / str(file) for file in files)
        case = _case(image, dataset)
        if case in pairs:
            raise InputError(f"{root / NAME}: training lists {case} twice. Remove one of the two")
        pairs[case] = (image, mask)
    return pairs


def _named(root: Path, dataset: Dataset) -> dict[str, tuple[Path, Path]]:
    """Case -> image and mask of its name, of every file in the two folders."""
    for images, masks in FOLDERS:
        if (root / images).is_dir() and (root / masks).is_dir():
            names = {file.name for folder in (images, masks) for file in visible(root / folder)}
            return {
                name.removesuffix(dataset.ending): (root / images / name, root / masks / name)
                for name in names
            }
    listed = " or ".join(f"{images} and {masks}" for images, masks in FOLDERS)
    raise InputError(f"{root}: neither {NAME} nor the folders {listed}. Give the folder of a task")


def _unlisted(root: Path, pairs: Mapping[str, tuple[Path, Path]]) -> Iterable[Path]:
    """Files of the training folders that the list does not name."""
    known = {file.resolve() for pair in pairs.values() for file in pair}
    for folder in FOLDERS[0]:
        for file in visible(root / folder) if (root / folder).is_dir() else ():
            if file.resolve() not in known:
                yield file


def _there(case: str, file: Path, reason: str, remedy: str) -> None:
    if not file.exists() and not file.is_symlink():
        beside = visible(file.parent) if file.parent.is_dir() else []
        if other := written_otherwise(file.name, (each.name for each in beside)):
            reason += f"; {file.parent.name} has {other}"
        raise CaseError(case, file, stage="read", reason=reason, remedy=remedy)
    one_of([file], case, "file")


def _channels(case: str, image: Path, dataset: Dataset, volumes: Path) -> dict[str, Path]:
    """Column -> file: the image itself, or a volume for each place of its fourth axis."""
    names = dataset.channels
    if len(names) == 1:
        return {names[0]: image}
    try:
        header = nifti_header(image, None)
        check_header(header)
    except HeaderFault as fault:
        raise CaseError(
            case, image, stage="read", reason=fault.reason, remedy=fault.remedy
        ) from fault
    size = header.size
    if len(size) != 4 or size[3] != len(names):
        raise CaseError(
            case,
            image,
            stage="read",
            reason=f"{' x '.join(map(str, size))} voxels, where a fourth axis of {len(names)} is "
            f"needed ({', '.join(names)})",
            remedy=f"Correct modality in {NAME}, or export the image again.",
        )
    files = {name: volumes / case / f"{name}.mha" for name in names}
    newest = image.stat().st_mtime
    if not all(f.is_file() and f.stat().st_mtime >= newest for f in files.values()):
        try:
            with apart(image) as alone:
                whole = sitk.ReadImage(str(alone))
        except RuntimeError as error:
            reason = f"unreadable image ({str(error).strip().splitlines()[-1]})"
            raise CaseError(
                case, image, stage="read", reason=reason, remedy="Download it again."
            ) from error
        for number, file in enumerate(files.values()):
            with atomic(file) as partial:
                sitk.WriteImage(whole[:, :, :, number], str(partial), useCompression=True)
    return files
