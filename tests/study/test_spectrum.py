"""Collapsed embeddings: what is said of them, and of no others."""

from __future__ import annotations

import numpy as np
import pytest

from lens.study.spectrum import spectrum, spectrum_notes

RNG = np.random.default_rng(0)
X = RNG.normal(size=(60, 20))


def test_the_spectrum_of_known_variances() -> None:
    axes = np.linalg.qr(RNG.normal(size=(50, 4)))[0]
    axes -= axes.mean(axis=0)
    u, _, _ = np.linalg.svd(axes, full_matrices=False)
    found = spectrum(u * np.sqrt([8.0, 4.0, 2.0, 2.0]) @ np.linalg.qr(RNG.normal(size=(4, 4)))[0])
    shares = np.array([0.5, 0.25, 0.125, 0.125])
    assert found.effective_rank == pytest.approx(np.exp(-(shares * np.log(shares)).sum()))
    assert found.leading == pytest.approx(0.5)
    assert found.dead == 0
    assert spectrum(np.c_[X, np.ones((60, 3))]).dead == 3


def test_only_collapsed_embeddings_are_spoken_of() -> None:
    collapsed = np.outer(RNG.normal(size=60), RNG.normal(size=20)) + 1e-3 * X
    dominated = X.copy()
    dominated[:, 3] *= 1000
    notes = spectrum_notes(X, {"fine": X[:, ::-1], "cls": collapsed, "reg": dominated})
    assert len(notes) == 2
    assert "after fine-tuning on cls" in notes[0]
    assert "effective rank is 1.0 of 20" in notes[0]
    assert "after fine-tuning on reg" in notes[1]
    assert spectrum_notes(X, {"cls": X}) == ()
    classifier = X.copy()
    classifier[:, 3] *= 11
    assert 0.8 < spectrum(classifier).leading < 0.95
    assert spectrum_notes(X, {"cls": classifier}) == ()


def test_a_narrow_embedding_has_not_collapsed() -> None:
    assert spectrum(X[:, :1]).effective_rank == pytest.approx(1.0)
    assert spectrum_notes(X[:, :1], {"cls": X[:, :3] * [10.0, 1.0, 1.0]}) == ()


def test_an_embedding_without_variance_has_collapsed_too() -> None:
    assert spectrum(np.ones((10, 5))) == (0.0, 0.0, 5)
    assert len(spectrum_notes(np.ones((60, 5)), {"cls": X})) == 1
