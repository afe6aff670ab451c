"""What tests assert of an error: its key, never its wording."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from mae_kit.errors import UserError


@contextmanager
def raises(*keys: str) -> Iterator[pytest.ExceptionInfo[UserError]]:
    """Expect a `UserError` with one of these keys, or with a key below it: `data.url` stands for `data.url.gone`, too.

    Raises:
        AssertionError: None was raised, or its key is another.
    """
    with pytest.raises(UserError) as caught:
        yield caught
    key = caught.value.key
    assert any(f"{key}.".startswith(f"{expected}.") for expected in keys), f"{key} ({caught.value}), expected {keys}"
