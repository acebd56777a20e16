"""What fine-tuning for volume and outline changed in a 3D encoder, on real hippocampus MR.

``python -m benchmarks.hippocampus --data hippocampus`` does everything and goes on where it was cut
off; on two cores training takes hours, so that `benchmarks.real.train` may be run elsewhere on the
pack that ``--part prepare`` leaves. It writes ``benchmarks/results/hippocampus.json`` and draws
``docs/evidence-hippocampus.png``.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import tyro

from benchmarks import harness
from benchmarks.real.flow import Part, Plan, carry_out

SHAPE, SPACING = (48, 64, 48), (1.0, 1.0, 1.0)
"""Input of the encoder: the largest crop fits."""

STEP, ZERO = 0.05, 60
"""Of the standard scores in the pack, and the code of zero: from -3 to 9.75."""


@dataclass(frozen=True)
class Config:
    """Where the archive is, and which part is done."""

    data: Path
    """Folder with images and labels (Medical Segmentation Decathlon, task 4)."""
    folder: Path = Path("runs/hippocampus")
    """Everything that is made on the way."""
    part: Part = "all"
    """prepare (manifest, pack), measure (radiomics), train, judge, report; all of them."""
    out: Path = harness.RESULTS / "hippocampus.json"
    """Where the results go."""
    figure: Path = Path("docs/evidence-hippocampus.png")
    """Where the figure goes."""


def main(config: Config) -> None:
    """Carries out the parts."""
    from benchmarks.real import cohorts
    from benchmarks.real.judge import Study

    def prepare(folder: Path) -> None:
        from benchmarks.real.flow import cached
        from benchmarks.real.pack import of_cached, write_pack

        cohorts.hippocampus(config.data, folder / "cohort.csv")
        stored = cached(folder, shape=SHAPE, spacing_mm=SPACING, label=cohorts.REGIONS)
        pack = of_cached(stored, "volume_ml", ("anterior", "posterior"), numbers=True)
        write_pack(folder / "pack.npz", pack, step=STEP, zero=ZERO)

    study = Study(
        name="hip",
        folder=config.folder,
        parameters=Path("benchmarks/real/hippocampus.yaml"),
        pools=("hippocampus", "global"),
        tasks={
            "volume": ("reg-0", "reg-1", "reg-2"),
            "outline": ("seg-0", "seg-1", "seg-2"),
            "low-rank": ("lora-0", "lora-1", "lora-2"),
            "permuted": ("permuted-0", "permuted-1", "permuted-2"),
            "frozen": ("frozen-0",),
        },
        paper=("hippocampus", ("volume", "outline", "permuted")),
        adjust=("volume_ml",),
        images=("--label", *cohorts.REGIONS, "--spacing", *map(str, SPACING)),
        perturbed=80,
    )
    steps = (("pretraining",), ("regression",), ("segmentation",))
    carry_out(Plan(study, prepare, steps, config.out, config.figure), config, config.part)


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
