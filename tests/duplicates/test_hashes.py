"""The eight orientations: hashes and thumbnails agree, and match their names."""

import numpy as np
import pytest
from PIL import Image
from support.random_images import picture

from mae_kit.duplicates.hashes import ORIENTATIONS, flipped_hashes, turn, turn_hashes

PILLOW = {
    "mirrored": Image.Transpose.FLIP_LEFT_RIGHT,
    "upside down, mirrored": Image.Transpose.FLIP_TOP_BOTTOM,
    "rotated by 180°": Image.Transpose.ROTATE_180,
    "transposed": Image.Transpose.TRANSPOSE,
    "rotated left": Image.Transpose.ROTATE_90,
    "rotated right": Image.Transpose.ROTATE_270,
    "transposed, rotated by 180°": Image.Transpose.TRANSVERSE,
}


def test_the_first_orientation_changes_nothing():
    gray = np.asarray(picture(0).convert("L").resize((16, 16)))[None]
    assert ORIENTATIONS[0] == "unchanged" and ORIENTATIONS[1:] == tuple(PILLOW)
    assert (turn(gray, 0) == gray).all()


@pytest.mark.parametrize("name", PILLOW)
def test_pictures_and_hashes_turn_as_their_name_says(name: str):
    orientation = ORIENTATIONS.index(name)
    small = picture(1).convert("L").resize((32, 32))
    turned = np.asarray(small.transpose(PILLOW[name]))
    assert (turn(np.asarray(small)[None], orientation)[0] == turned).all()
    hashes = np.array([flipped_hashes(np.asarray(small))[0]], np.uint64)
    assert turn_hashes(hashes, orientation).tolist() == [flipped_hashes(turned)[0][0]]
    assert turn_hashes(hashes, orientation) != turn_hashes(hashes, 0)
