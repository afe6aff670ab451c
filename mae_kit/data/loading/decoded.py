"""Batches to score on without the images that do not decode, which are counted and told."""

import logging
from collections.abc import Callable, Iterable, Iterator

from mae_kit.data.loading.batch import Batch
from mae_kit.errors import UserError

log = logging.getLogger(__name__)


def decoded(
    batches: Iterable[Batch], name: str, advance: Callable[[float], None] = lambda count: None
) -> Iterator[Batch]:
    """The batches that hold an image; at their end a warning says how many images were left out.

    Args:
        batches: As `EvaluationBatches`, which replace no image.
        name: Of the shards in messages.
        advance: Called with 1 behind each batch.

    Raises:
        UserError: `data.none_decodes.labeled`: there is no image, or none that decodes.
    """
    bad, some = list[str](), False
    for batch in batches:
        bad += batch.bad
        if len(batch.images):
            some = True
            yield batch
        advance(1)
    if not some:
        fix = "`mae-kit index` reports what is wrong with the shards"
        raise UserError("data.none_decodes.labeled", f"no labeled image of {name} decodes", fix)
    if bad:
        log.warning(f"{name}: {len(bad):,} images are left out, the first: {bad[0]}")
