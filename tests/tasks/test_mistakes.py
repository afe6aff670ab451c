import io
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from mae_kit.data.index.open import open_index
from mae_kit.data.loading.loader import EvaluationBatches
from mae_kit.files.run_folder import RunFolder
from mae_kit.tasks.mistakes import MOST, SIDE, Mistake, mistakes_of, save_mistakes, surest


def test_the_surest_ones_are_kept_and_drawn(photos: Path, tmp_path: Path):
    index = open_index(photos / "val-*.tar")
    (batch,) = EvaluationBatches(index, index.labeled()[:6], 6, (32, 32), 3)
    logits = 9.0 * torch.nn.functional.one_hot(batch.labels, 4)
    logits[2, (batch.labels[2] + 1) % 4] = 12.0
    logits[4, (batch.labels[4] + 1) % 4] = 11.0
    found = mistakes_of(logits, batch)
    assert [one.row for one in found] == [int(batch.ids[2]), int(batch.ids[4])] and found == surest(found[::-1])
    assert len(surest([Mistake(0.5, 1, row) for row in range(99)])) == MOST
    run, names = RunFolder(tmp_path), ["a", "b", "c", "d"]
    records = save_mistakes(run, index, found, names)
    assert [one["predicted"] for one in records] == [names[(int(batch.labels[row]) + 1) % 4] for row in (2, 4)]
    assert records[0]["probability"] > records[1]["probability"] > 0.5
    assert max(Image.open(io.BytesIO(run.mistake(1).read_bytes())).size) <= SIDE


def test_of_several_labels_there_are_none(photos: Path):
    index = open_index(photos / "val-*.tar")
    (batch,) = EvaluationBatches(index, index.labeled()[:6], 6, (32, 32), 3)
    assert mistakes_of(torch.zeros(6, 4), batch._replace(labels=torch.from_numpy(np.ones((6, 4), bool)))) == []
