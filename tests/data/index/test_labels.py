"""What two sides must agree on before one is learned from and the other scored on."""

from pathlib import Path

import numpy as np
from support.errors import raises
from support.photo_shards import write_shard

from mae_kit.data.index.labels import (
    common_classes,
    draw_per_class,
    label_names,
    label_numbers,
    must_be_apart,
    smallest_class,
)
from mae_kit.data.index.open import Index, open_index


def side(folder: Path, sets: bool, classes: str = "a b c d") -> Index:
    folder.mkdir()
    write_shard(folder / "0.tar", range(4), sets=sets)
    if classes:
        (folder / "classes.txt").write_text(classes.replace(" ", "\n"))
    return open_index(folder)


def test_two_sides_of_one_kind(tmp_path: Path):
    sets, more = side(tmp_path / "sets", True), side(tmp_path / "more", True)
    assert common_classes(sets, more, ("x", "y")) == ["a", "b", "c", "d"]
    unnamed, single = side(tmp_path / "unnamed", True, ""), side(tmp_path / "single", False)
    with raises("data.classes"):
        common_classes(sets, unnamed, ("x", "y"))
    for indexes, names in (((sets, single), ("x", "y")), ((single, sets), ("y", "x"))):
        with raises("data.classes"):
            common_classes(*indexes, names)


def test_names_on_one_side_are_those_of_all_labels(tmp_path: Path):
    unnamed, named, short = (
        side(tmp_path / name, False, classes) for name, classes in {"0": "", "4": "a b c d", "3": "a b c"}.items()
    )
    assert common_classes(unnamed, named, ("x", "y")) == common_classes(named, unnamed, ("y", "x")) == named.classes
    for indexes, names in (((unnamed, short), ("x", "y")), ((short, unnamed), ("y", "x"))):
        with raises("data.classes"):
            common_classes(*indexes, names)


def test_one_class_alone_is_enough_only_where_an_image_may_lack_it(tmp_path: Path):
    named, sets = side(tmp_path / "named", False, "a"), side(tmp_path / "sets", True, "a")
    assert common_classes(sets, sets, ("x", "y")) == ["a"]
    with raises("data.classes"):
        common_classes(named, named, ("x", "y"))


def test_labels_by_number_and_by_name(tmp_path: Path):
    sets, single = side(tmp_path / "sets", True), side(tmp_path / "single", False, "")
    assert [list(label_names(sets, row)) for row in range(4)] == [[], ["b"], ["c"], ["b", "d"]]
    assert [list(label_names(single, row)) for row in range(4)] == [[0], [1], [2], [3]]
    assert label_numbers(single).tolist() == [0, 1, 2, 3] and len(set(label_numbers(sets).tolist())) == 4


def test_a_few_of_each_class_are_drawn_and_of_sets_none_without_a_class():
    labels = np.random.default_rng(0).integers(4, size=60)
    few = draw_per_class(labels, 5, seed=1)
    assert np.bincount(labels[few]).tolist() == [5] * 4 and sorted(set(few.tolist())) == few.tolist()
    assert few.tolist() != draw_per_class(labels, 5, seed=2).tolist()
    sets = (labels[:, None] == np.arange(4)) & (labels[:, None] < 3)  # class 3: none of them
    sets[:, 1] |= labels == 0
    drawn = draw_per_class(sets, 5, seed=1)
    assert sets[drawn].any(axis=1).all() and (sets[drawn].sum(axis=0)[:3] >= 5).all() and len(drawn) <= 15
    assert smallest_class(sets) == min(sets.sum(axis=0)[:3])


def test_what_is_scored_on_is_not_learned_from(photos: Path):
    train, val, all_of_them = (open_index(photos / name) for name in ("train-*.tar", "val-*.tar", "*.tar"))
    must_be_apart(train, val, ("train", "val"))
    for one in (all_of_them, val):
        with raises("data.val"):
            must_be_apart(one, val, ("train", "val"))
