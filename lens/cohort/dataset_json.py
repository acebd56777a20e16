"""``dataset.json`` of nnU-Net and of the Medical Segmentation Decathlon: channels and regions."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lens.cohort.prepared import check_columns
from lens.cohort.regions import parse_labels
from lens.errors import InputError
from lens.utf8 import AS_TEXT, read_utf8

NAME = "dataset.json"

MASK = "mask"
"""Column of the masks where they hold several regions."""

NO_REGION = ("background", "ignore")
"""Names of values that make no region."""


@dataclass(frozen=True)
class Dataset:
    """What the values and files of a dataset mean.

    Attributes:
        channels: columns of the images, in order of the channel numbers.
        regions: region -> the mask values that make it.
        ending: of every image file, such as ``.nii.gz``.
        content: ``dataset.json`` as it is; empty without one.
    """

    channels: tuple[str, ...]
    regions: Mapping[str, tuple[int, ...]]
    ending: str
    content: Mapping[str, Any]

    @property
    def mask(self) -> str:
        """The column of the masks: the region, where there is one."""
        return next(iter(self.regions)) if len(self.regions) == 1 else MASK

    @property
    def flags(self) -> tuple[str, ...]:
        """What the jobs that read masks must be told: ``--label anterior=1 posterior=2``.

        Of a single region, too: masks may hold values that are none, such as those of ``ignore``.
        """
        values = (f"{roi}={','.join(map(str, v))}" for roi, v in self.regions.items())
        return ("--label", *values)


def read_dataset(
    root: Path, *, modalities: Sequence[str] = (), labels: Sequence[str] = ()
) -> Dataset:
    """Channels and regions of the dataset in a folder.

    Args:
        root: its folder.
        modalities: names of the channels in order, in place of those in the file.
        labels: ``REGION=VALUES``, in place of those in the file. With both, the file may be absent.

    Raises:
        InputError: no folder, no file, or one that does not say what is needed (names the key); a
            name of a channel or region that cannot be a column.
    """
    if not root.is_dir():
        raise InputError(f"{root}: no such folder")
    path = root / NAME
    if not path.is_file() and modalities and labels:
        return _checked(root, Dataset(tuple(modalities), parse_labels(labels), ".nii.gz", {}))
    if not path.is_file():
        below = sorted(p.parent.name for p in root.glob(f"*/{NAME}"))
        raise InputError(
            f"{root}: no {NAME}. "
            + (f"Give one of its folders: {', '.join(below)}" if below else "Give the folder with "
               "it, or say what it would: --modalities mr --label anterior=1 posterior=2")
        )  # fmt: skip
    try:
        content = json.loads(read_utf8(path, AS_TEXT))
    except json.JSONDecodeError as error:
        raise InputError(f"{path}: not readable as JSON ({error})") from error
    if not isinstance(content, dict):
        raise InputError(f"{path}: no JSON object with labels and channel_names or modality")
    ending = content.get("file_ending", ".nii.gz")
    if not isinstance(ending, str) or not ending.startswith("."):
        raise InputError(f"{path}: file_ending {ending!r}: write the end of names, such as .nii.gz")
    channels = _channels(path, content)
    if modalities and len(modalities) != len(channels):
        raise InputError(
            f"--modalities {' '.join(modalities)}: {path} has {len(channels)} channel(s): "
            f"{', '.join(channels)}. Give a name for each, in this order"
        )
    found = Dataset(tuple(modalities) or channels, {}, ending, content)
    regions = parse_labels(labels) if labels else _regions(path, content)
    return _checked(path, replace(found, regions=regions))


def _checked(where: Path, dataset: Dataset) -> Dataset:
    check_columns(
        where,
        dataset.channels,
        [dataset.mask],
        dataset.regions,
        remedy="Name the channels, in order, or the regions otherwise: --modalities, --label",
    )
    return dataset


def column_name(text: str) -> str:
    """A name as a column has it: ``T1w (contrast)`` is ``t1w_contrast``."""
    return re.sub(r"\W+", "_", text.strip().lower()).strip("_")


def _channels(path: Path, content: Mapping[str, Any]) -> tuple[str, ...]:
    key = "channel_names" if "channel_names" in content else "modality"
    found = content.get(key)
    if not isinstance(found, dict) or not found:
        raise InputError(
            f"{path}: no channel_names (or modality) that names each channel. Write "
            '"channel_names": {"0": "CT"}'
        )
    if sorted(found) != sorted(map(str, range(len(found)))):
        raise InputError(
            f"{path}: {key} has the numbers {', '.join(found)}, where 0 to {len(found) - 1} are "
            "needed. Number the channels as the files do"
        )
    names = [column_name(str(found[str(number)])) for number in range(len(found))]
    if not all(names):
        raise InputError(f"{path}: {key}: a channel has no name. Give it one")
    return tuple(
        f"{name}_{number}" if names.count(name) > 1 else name for number, name in enumerate(names)
    )


def _regions(path: Path, content: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    found = content.get("labels")
    if not isinstance(found, dict) or not found:
        raise InputError(f'{path}: no labels. Write "labels": {{"background": 0, "tumour": 1}}')
    regions: dict[str, tuple[int, ...]] = {}
    for key, value in found.items():
        # The second version of the format has name -> value(s), the first value -> name.
        name, values = (value, key) if isinstance(value, str) and key.isdigit() else (key, value)
        values = tuple(_values(path, key, values))
        roi = column_name(str(name))
        if roi in NO_REGION or values == (0,):
            continue
        if not roi or not values or min(values) < 1 or roi in regions:
            raise InputError(
                f"{path}: labels: {key!r}: {value!r}: write a name of its own and one or more "
                "values above 0"
            )
        regions[roi] = values
    if not regions:
        raise InputError(f"{path}: labels name nothing but background. Add the regions")
    return regions


def _values(path: Path, key: str, values: object) -> Iterable[int]:
    listed = values if isinstance(values, list) else [values]
    for value in listed:
        if isinstance(value, bool) or not re.fullmatch(r"\d+", str(value)):
            raise InputError(
                f"{path}: labels: {key!r} has the value {value!r}, where whole numbers are needed"
            )
        yield int(str(value))
