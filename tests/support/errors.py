"""What tests assert of an error: its key, never its wording."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from mae_kit.errors import UserError


@contextmanager
def raises(*keys: str) -> Iterator[pytest.ExceptionInfo[UserError]]:
    """Expect a `UserError` with one of these keys.

    Raises:
        AssertionError: None was raised, or its key is another.
    """
    with pytest.raises(UserError) as caught:
        yield caught
    assert caught.value.key in keys, f"key {caught.value.key!r} ({caught.value}), expected one of {keys}"
