"""How to cite: the software and the paper, as CITATION.cff has them."""

from __future__ import annotations

TITLE = "Radiomic Lens: what fine-tuning changed in an image encoder, in radiomic features"
AUTHORS = "The Radiomic Lens developers"
LICENCE = "Apache-2.0"

PAPER_TITLE = (
    "What Fine-Tuning Changes: A Radiomic Lens on Prostate Foundation Model Representations"
)
PAPER_AUTHOR = "Wang"
PAPER_YEAR = 2026
PAPER_VENUE = "Medical Imaging with Deep Learning (MIDL)"

MESSAGE = (
    "If you use Radiomic Lens, please cite the software and the paper whose method it implements."
)


def bibtex(version: str) -> str:
    """Entries for BibTeX.

    Args:
        version: of the software that made the results.
    """
    return f"""@software{{radiomic_lens,
  title = {{{{{TITLE}}}}},
  author = {{{{{AUTHORS}}}}},
  version = {{{version}}},
  license = {{{LICENCE}}}
}}

@inproceedings{{wang{PAPER_YEAR}radiomic,
  title = {{{{{PAPER_TITLE}}}}},
  author = {{{PAPER_AUTHOR} and others}},
  booktitle = {{{PAPER_VENUE}}},
  year = {{{PAPER_YEAR}}}
}}
"""
