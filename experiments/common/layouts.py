"""Layouts of folders that ``prepare`` knows beside the archives: their flags."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tyro.conf import Positional

if TYPE_CHECKING:
    from lens.cohort.prepared import Prepared


def volumes_beside(out: Path) -> Path:
    """Folder of the volumes that are written because no cell can name them."""
    return out.with_name(f"{out.stem}-volumes")


@dataclass(frozen=True)
class NnUNet:
    """Finds the cases of a raw dataset of nnU-Net, by its dataset.json.

    imagesTr/CASE_0000.nii.gz is a column per channel, labelsTr/CASE.nii.gz one of masks; the line
    that is printed names the regions of its values for other jobs. Nothing is copied. Test images
    without masks are left out, incomplete cases listed in failures.csv (exit code 3).
    """

    folder: Positional[Path]
    """Folder with dataset.json, imagesTr and labelsTr."""

    out: Path
    """Manifest to write (.csv); its paths are relative to its folder where possible."""

    modalities: tuple[str, ...] = ()
    """Names of the channels in order, in place of those in dataset.json."""

    label: tuple[str, ...] = ()
    """Regions and their mask values, such as tumour=1,2, in place of those in dataset.json."""

    def find(self) -> Prepared:
        """The cases and what cannot be used."""
        from lens.cohort.nnunet import prepare_nnunet

        return prepare_nnunet(self.folder, modalities=self.modalities, labels=self.label)


@dataclass(frozen=True)
class Decathlon:
    """Finds the pairs of a Medical Segmentation Decathlon task, by its dataset.json.

    Modalities on the fourth axis of an image are written as volumes in NAME-volumes beside the
    manifest. Without dataset.json, --modalities and --label say what it would, and files of one
    name in imagesTr and labelsTr (or images and labels) are pairs. Files without a partner are
    listed in failures.csv (exit code 3).
    """

    folder: Positional[Path]
    """Folder of the task."""

    out: Path
    """Manifest to write (.csv); its paths are relative to its folder where possible."""

    modalities: tuple[str, ...] = ()
    """Names of the modalities in order, in place of those in dataset.json."""

    label: tuple[str, ...] = ()
    """Regions and their mask values, such as tumour=1,2, in place of those in dataset.json."""

    def find(self) -> Prepared:
        """The cases and what cannot be used."""
        from lens.cohort.decathlon import prepare_decathlon

        volumes = volumes_beside(self.out)
        return prepare_decathlon(
            self.folder, volumes, modalities=self.modalities, labels=self.label
        )


@dataclass(frozen=True)
class Bids:
    """Finds the sessions of a BIDS dataset, with masks of its derivatives.

    Images are those of anat, a column per suffix; masks the files ending in _mask or _roi (a region
    per label- or desc-) or _dseg (regions by its table). participants.tsv and sessions.tsv give the
    labels. Several files for one cell set the session aside with their names (exit code 3).
    """

    folder: Positional[Path]
    """Folder with sub-*."""

    out: Path
    """Manifest to write (.csv); its paths are relative to its folder where possible."""

    image: tuple[str, ...] = ()
    """NAME=PATTERN of each image column, in place of a column per suffix: t1w='*_run-01_T1w', a
    shell pattern of the path below the folder without the ending."""

    mask: tuple[str, ...] = ()
    """NAME=PATTERN of each mask column, in place of those that names tell."""

    def find(self) -> Prepared:
        """The sessions and what cannot be used."""
        from lens.cohort.bids import prepare_bids

        images, masks = named("--image", self.image), named("--mask", self.mask)
        return prepare_bids(self.folder, images=images, masks=masks)


@dataclass(frozen=True)
class Dicom:
    """Finds the studies of a DICOM tree of any modality, with SEG and RTSTRUCT as masks.

    A column per DICOM modality (ct, mr) or per --image, and per segment or structure or --region,
    by name. Masks are written in NAME-volumes beside the manifest; contours are filled on the grid
    of their image. Studies that cannot be used are listed in failures.csv (exit code 3).
    """

    folder: Positional[Path]
    """Folder with the DICOM files, the slices of each series in a folder of their own."""

    out: Path
    """Manifest to write (.csv); its paths are relative to its folder where possible."""

    image: tuple[str, ...] = ()
    """NAME=PATTERN of each image column, a shell pattern of the SeriesDescription:
    venous='*portal*'."""

    region: tuple[str, ...] = ()
    """NAME=PATTERN of each region, a shell pattern of segment labels and ROI names:
    tumour='GTV*'; all that fit are one region."""

    def find(self) -> Prepared:
        """The studies and what cannot be used."""
        from lens.cohort.dicom_objects import prepare_objects

        images, regions = named("--image", self.image), named("--region", self.region)
        volumes = volumes_beside(self.out)
        return prepare_objects(self.folder, volumes, images=images, regions=regions)


LAYOUTS = {"nnunet": NnUNet, "decathlon": Decathlon, "bids": Bids, "dicom": Dicom}
"""Command -> how a layout is found: its flags, ``out`` among them, and ``find()``."""


def named(flag: str, arguments: Sequence[str]) -> dict[str, str]:
    """``NAME=PATTERN`` arguments as a mapping.

    Raises:
        InputError: an argument of another form, a name given twice, or one that no column can have.
    """
    from lens.errors import InputError
    from lens.names import name_problem

    found: dict[str, str] = {}
    for argument in arguments:
        name, _, pattern = argument.partition("=")
        if not name or not pattern or name in found:
            raise InputError(f"{flag} {argument!r}: give NAME=PATTERN, each name once")
        if problem := name_problem(name):
            raise InputError(f"{flag} {argument!r}: {problem}")
        found[name] = pattern
    return found
