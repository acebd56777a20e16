"""Edited images of both studies, and what encoders make of them, wherever these are.

    python -m benchmarks.real.edited make us --folder F --to edited.npz
    python -m benchmarks.real.edited embed us --pack us.npz --edited edited.npz --runs DIR --to DIR

``make`` edits images of the test part inside the region (`lens.edits`), with the same edit outside
and matched noise as controls, and keeps what changed, in the steps of the study's pack. ``embed``
shows it to the encoder before fine-tuning and to every one that `benchmarks.real.train` kept, and
leaves a file for each; what is finished is not made again.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int, UInt8

from benchmarks.real.pack import Pack, as_written, codes_of, read_pack, read_weights


@dataclass(frozen=True)
class Edited:
    """What is edited in a study.

    Attributes:
        region: that is edited.
        image: likewise.
        label: of the cohort.
        doses: edit -> doses, as `lens.edits.catalogue` has them.
        parts: mask values of the region, where they are not all above zero.
        shape, spacing_mm: of an encoder's input, as in the pack.
    """

    region: str
    image: str
    label: str
    doses: dict[str, tuple[float, ...]]
    parts: tuple[str, ...]
    shape: tuple[int, int, int]
    spacing_mm: tuple[float, float, float]


STUDIES = {
    "us": Edited(
        "lesion", "us", "diagnosis",
        {"shift": (-0.5, 0.5), "contrast": (-0.5, 0.5), "smooth": (1.5, 3.0), "texture:3": (0.5,),
         "grow": (-3.0, 3.0)},
        (), (1, 252, 252), (1.0, 1.0, 1.0),
    ),
    "hip": Edited(
        "hippocampus", "mr", "volume_ml",
        {"shift": (-0.5, 0.5), "contrast": (-0.5, 0.5), "smooth": (1.0, 2.0), "texture:2": (0.5,),
         "grow": (-1.0, 1.0)},
        ("hippocampus=1,2",), (48, 64, 48), (1.0, 1.0, 1.0),
    ),
}  # fmt: skip
"""Pixels of ultrasound count as millimetres: of the archive's pictures the scale is not known."""

SEED = 0
"""Of the choice of patients, of texture and noise."""

BATCH = 32


class Versions(NamedTuple):
    """Edited volumes of a study.

    Attributes:
        row: of the pack, of each version.
        target, dose, arm: places of its edit among those of the study, of its dose, and of
            `lens.edits.versions.ARMS`.
        rms: size of its change in standard deviations of the image, over the voxels that changed.
        size: of the region in it, as a share of the original's.
        change: (v, D, H, W), its codes less those of the original, modulo 256.
    """

    row: Int[np.ndarray, " v"]
    target: Int[np.ndarray, " v"]
    dose: Int[np.ndarray, " v"]
    arm: Int[np.ndarray, " v"]
    rms: Float[np.ndarray, " v"]
    size: Float[np.ndarray, " v"]
    change: UInt8[np.ndarray, "v d h w"]


def chosen(pack: Pack, most: int) -> np.ndarray:
    """Rows that are edited: of the test part, the first study of each patient, drawn."""
    first = np.unique(pack.patient_id, return_index=True)[1]
    rows = np.sort(first[pack.split[first] == "test"])
    return np.sort(np.random.default_rng(SEED).permutation(rows)[:most])


def make(study: Edited, folder: Path, most: int, to: Path) -> None:
    """Edits and keeps what changed; a patient in whom an edit cannot be made counts in the others.

    Args:
        study: what to edit.
        folder: of the study, with ``cohort.csv`` and ``pack.npz``.
        most: patients.
        to: file to write.
    """
    from lens.cohort import parse_labels, read_manifest
    from lens.cohort.columns import Declared

    packed = read_pack(folder / "pack.npz")
    labels = parse_labels(study.parts)
    cohort = read_manifest(folder / "cohort.csv", declared=Declared(labels=labels))
    cases = {(str(c.patient_id), str(c.study_id or "")): c for c in cohort.cases}
    written, made = as_written(folder / "pack.npz"), []
    for row in chosen(packed, most):
        files = cases[str(packed.patient_id[row]), str(packed.study_id[row])]
        original = codes_of(packed.volumes[row], written)
        for cell, sizes, volume in _versions(study, files, labels):
            change = codes_of(volume, written) - original
            if not cell:
                # Background apart, a pack holds every value to half a step.
                assert not change.any(), f"{files.patient_id}: not the volume of the pack"
                continue
            made.append((row, *cell, *sizes, change))
    rows = Versions(*(np.array(column) for column in zip(*made, strict=True)))
    to.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(to, allow_pickle=False, **rows._asdict())
    patients = len(np.unique(rows.row))
    print(f"{to}: {len(rows.row)} versions of {patients} patients, {to.stat().st_size} bytes")


def _versions(study: Edited, files: Any, labels: Any) -> Iterator[tuple[Any, Any, np.ndarray]]:
    """Cell, sizes of change and region, and volume of the original, which has no cell, and of
    every version of a case."""
    from lens.cohort import read_case, stack
    from lens.edits.catalogue import ALL, Edit, Target
    from lens.edits.versions import ARMS, editable, versions
    from lens.errors import CaseError

    case = read_case(files, spacing_mm=study.spacing_mm, labels=labels or None)
    of = editable(case, study.region, seed=SEED)
    seen = {"shape": study.shape, "modalities": (study.image,), "scalings": of.scalings}
    yield (), (), stack(case, **seen)
    for at, (name, doses) in enumerate(study.doses.items()):
        edit = Edit(name, doses)
        target = Target(edit, study.region, ALL if edit.moves_contours else study.image)
        try:
            found = list(versions(of, edit, target.images((study.image,))))
        except CaseError as error:
            print(f"{files.patient_id}: {error.reason}")
            continue
        for dose, arm, version in found:
            if version is not None:
                cell = (at, doses.index(dose), ARMS.index(arm))
                after = editable(version.case, study.region).region.sum()
                yield cell, (version.rms, after / of.region.sum()), stack(version.case, **seen)


def embed(pack: Path, edited: Path, encoders: dict[str, Any], to: Path) -> None:
    """Embeddings of all versions less those of their originals, as float16.

    Args:
        pack: of the study.
        edited: of `make`.
        encoders: by name.
        to: folder, gets a file for each.
    """
    from encoders import embed as embedded
    from lens.files import write_arrays

    packed, written = read_pack(pack), as_written(pack)
    with np.load(edited) as stored:
        versions = Versions(*(stored[name] for name in Versions._fields))

    def volumes() -> Iterator[np.ndarray]:
        for row, change in zip(versions.row, versions.change, strict=True):
            codes = codes_of(packed.volumes[row], written) + change
            yield written.values(codes)[..., None]

    to.mkdir(parents=True, exist_ok=True)
    rows, place = np.unique(versions.row, return_inverse=True)
    for name, encoder in encoders.items():
        path = to / f"{name}.npz"
        if path.is_file():
            continue
        original = embedded(encoder, packed.volumes[rows], batch_size=BATCH)
        x = embedded(encoder, volumes(), batch_size=BATCH)
        write_arrays(path, change=(x - original[place]).astype(np.float16))
        print(f"{name}: {x.shape}", flush=True)


def kept(study: str, runs: Path, weights: Path | None) -> dict[str, Any]:
    """The encoder before fine-tuning, ``pre``, and those that were kept after it.

    Args:
        study: ``us`` or ``hip``.
        runs: folder of `benchmarks.real.train`.
        weights: of the vision transformer of ``us``.
    """
    from flax import nnx

    from encoders import ConvNeXtV2, ConvNeXtV2Config
    from encoders.vit import ViT, ViTConfig

    if study == "us":
        assert weights is not None, "--weights"
        pre: Any = ViT(ViTConfig.named("small", in_channels=1), rngs=nnx.Rngs(0))
        read_weights(weights, pre)
    else:
        pre = ConvNeXtV2(ConvNeXtV2Config.named("atto", in_channels=1), rngs=nnx.Rngs(0))
        read_weights(runs / "encoders/pretrained.npz", pre)
    encoders = {"pre": pre}
    for path in sorted((runs / "encoders").glob("*-[0-9].npz")):
        encoders[path.stem] = nnx.clone(pre)
        read_weights(path, encoders[path.stem], pre)
    return encoders


def main() -> None:
    """Does a part."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("part", choices=("make", "embed"))
    parser.add_argument("study", choices=tuple(STUDIES))
    parser.add_argument("--folder", type=Path, help="of the study, to make")
    parser.add_argument("--most", type=int, default=60, help="patients to edit")
    parser.add_argument("--pack", type=Path, help="of the study, to embed")
    parser.add_argument("--edited", type=Path, help="what was made")
    parser.add_argument("--runs", type=Path, help="folder of finished runs, to embed")
    parser.add_argument("--weights", type=Path, help="of the vision transformer")
    parser.add_argument("--to", type=Path, required=True, help="file to make, folder to embed into")
    given = parser.parse_args()
    if given.part == "make":
        make(STUDIES[given.study], given.folder, given.most, given.to)
    else:
        encoders = kept(given.study, given.runs, given.weights)
        embed(given.pack, given.edited, encoders, given.to)


if __name__ == "__main__":
    main()
