"""Of what is scored, images that do not decode are counted, and told."""

from pathlib import Path

import numpy as np
import pytest
from support.errors import raises
from support.photo_shards import write_shard

from mae_kit.data.index.open import open_index
from mae_kit.data.loading.decoded import decoded
from mae_kit.data.loading.loader import EvaluationBatches

SIZE = (8, 8)


def test_batches_with_an_image_come_and_the_others_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    write_shard(tmp_path / "train-0.tar", range(12), damaged=(3, 4, 5, 11))
    batches, seen = EvaluationBatches(open_index(tmp_path), np.arange(12), 3, SIZE), list[float]()
    found = [batch.ids.tolist() for batch in decoded(batches, "photos", seen.append)]
    assert found == [[0, 1, 2], [6, 7, 8], [9, 10]] and seen == [1] * 4
    assert "photos: 4 images are left out" in caplog.text


@pytest.mark.parametrize("rows", [range(3), ()])
def test_nothing_to_score_is_refused(tmp_path: Path, rows: range):
    write_shard(tmp_path / "train-0.tar", range(3), damaged=(0, 1, 2))
    batches = EvaluationBatches(open_index(tmp_path), np.array(rows, int), 2, SIZE)
    with raises("data.none_decodes"):
        list(decoded(batches, "photos"))
