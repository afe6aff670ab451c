"""Sets of classes: any number a sample, none at all, and unknown are three different things."""

from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from mae_kit.data.index.class_sets import ClassSets

SETS = [(0, 3, 7), (), None, (2,), (), (0, 3, 7)]


def one_set() -> st.SearchStrategy[Any]:
    return st.none() | st.sets(st.integers(0, 9)).map(lambda found: tuple(sorted(found)))


def test_none_of_the_classes_is_not_unknown():
    packed = ClassSets.pack(SETS)
    assert packed.tolist() == SETS and packed.known.tolist() == [True, True, False, True, True, True]
    hot = packed.multi_hot(8)
    assert hot.dtype == bool and hot.sum(axis=1).tolist() == [3, 0, 0, 1, 0, 3]
    assert np.flatnonzero(hot[0]).tolist() == [0, 3, 7]


def test_equal_sets_have_equal_numbers():
    numbers = ClassSets.pack(SETS).numbers()
    assert numbers[0] == numbers[5] and numbers[1] == numbers[4] and numbers[2] == -1
    assert len(set(numbers.tolist())) == 4


@given(st.lists(one_set(), min_size=1), st.data())
def test_rows_are_taken_as_from_a_list(sets: list[Any], data: st.DataObject):
    rows = data.draw(st.lists(st.integers(0, len(sets) - 1)))
    taken = ClassSets.pack(sets).take(np.array(rows, np.int64))
    assert taken.tolist() == [sets[row] for row in rows] if rows else len(taken) == 0
    joined = ClassSets.join([taken, ClassSets.unknown(2), ClassSets.pack(sets)])
    assert joined.tolist() == [*(sets[row] for row in rows), None, None, *sets]
