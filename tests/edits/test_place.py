"""The control region: of the same size and shape, elsewhere, in the organ where that has room."""

from __future__ import annotations

import numpy as np
import pytest

from lens.edits.place import place
from tests.edits.builders import ball, case, edit, ready

SHAPE, SPACING = (12, 40, 40), (2.0, 1.0, 1.0)


def region(centre=(6, 12, 12), radius=4.0) -> np.ndarray:
    return ball(SHAPE, centre, radius, SPACING)


def offsets(mask: np.ndarray) -> np.ndarray:
    found = np.argwhere(mask)
    return found - found.min(axis=0)


def test_a_copy_has_the_same_shape_and_shares_no_voxel() -> None:
    own = region()
    found = place(own, np.ones(SHAPE, bool), SPACING)
    assert found is not None
    assert found.found == "copy"
    assert np.array_equal(offsets(found.region), offsets(own))
    apart = np.linalg.norm(
        (np.argwhere(found.region)[:, None] - np.argwhere(own)) * np.array(SPACING), axis=2
    )
    assert apart.min() > max(SPACING)


@pytest.mark.parametrize("centre", [(2, 5, 5), (6, 35, 20)])
def test_a_copy_lies_in_the_body_and_in_the_organ_that_holds_the_region(centre) -> None:
    own = region(centre, radius=3.0)
    body = np.zeros(SHAPE, bool)
    body[:, 1:, 1:] = True
    body |= own
    organ = np.zeros(SHAPE, bool)
    organ[:, centre[1] - 5 : centre[1] + 5, :] = True
    organ |= own
    found = place(own, body, SPACING, hosts=[organ, np.zeros(SHAPE, bool)])
    assert found is not None
    assert found.found == "copy"
    assert not np.any(found.region & ~body)
    assert not np.any(found.region & ~organ)


def test_an_organ_without_room_is_left() -> None:
    own = region()
    organ = ball(SHAPE, (6, 12, 12), 5.0, SPACING)
    found = place(own, np.ones(SHAPE, bool), SPACING, hosts=[organ])
    assert found is not None
    assert found.found == "copy"
    assert np.any(found.region & ~organ)


def test_a_region_that_fills_the_image_gets_a_shell_of_as_many_voxels() -> None:
    own = ball(SHAPE, (6, 20, 20), 11.0, SPACING)
    found = place(own, np.ones(SHAPE, bool), SPACING)
    assert found is not None
    assert found.found == "shell"
    assert found.region.sum() == own.sum()
    assert not np.any(found.region & own)
    assert place(own, np.ones(SHAPE, bool), SPACING, shell=False) is None


def test_no_room_at_all() -> None:
    own = region()
    assert place(own, own, SPACING) is None
    assert place(np.ones(SHAPE, bool), np.ones(SHAPE, bool), SPACING) is None


def test_a_control_of_a_contour_keeps_away_from_what_the_edit_moves() -> None:
    of = ready(case(shape=(40, 60, 60), centre=(20, 15, 15), radius=5.0))
    found = of.outside(edit("grow", 1.0), ("t2",))
    assert found is not None
    gap = np.linalg.norm(np.argwhere(found.region)[:, None] - np.argwhere(of.region), axis=2).min()
    assert gap > 6


def test_voxels_without_tissue_are_no_place() -> None:
    made = case(shape=(16, 40, 40), centre=(8, 10, 10), radius=4.0)
    values = np.array(made.images["t2"].GetSize())
    assert values.tolist() == [40, 40, 16]
    image = made.images["t2"]
    image[:, 20:, :] = 0.0
    of = ready(made)
    found = of.outside(edit("shift"), ("t2",))
    assert found is not None
    assert not np.any(found.region[:, 20:])
