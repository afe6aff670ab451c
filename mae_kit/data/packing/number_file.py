"""Numbers in a table, for regression: a CSV with a line for each image file and a column for each number."""

import logging
from collections.abc import Collection
from pathlib import Path

from mae_kit.data.index.targets import Target
from mae_kit.data.packing.label_file import Table, lines_of_images, to_number
from mae_kit.errors import UserError

log = logging.getLogger(__name__)


def read_numbers(table: Table, root: Path, images: Collection[str]) -> dict[str, Target]:
    """Read the numbers of images, by the file's name as the folder lists it; an empty field is an image without them.

    Args:
        table: Every column but that of the files holds numbers.
        root: The folder that file names are relative to.
        images: The images in it.

    Raises:
        UserError: `shard.labels`: no other column, a field that is no number, a file twice, not in the folder or none
            of the images, or no numbers at all.
    """
    columns = [name for name in table.columns if name != table.file]
    if not columns or not table.lines:
        raise table.refusal()
    found = {}
    for image, line in lines_of_images(table, root, images):
        fields = {name: (line[name] or "").strip() for name in columns}
        numbers = {name: to_number(field) for name, field in fields.items()}
        if wrong := next((name for name in columns if fields[name] and numbers[name] is None), None):
            what = f"{table.path} has {fields[wrong][:40]!r} for {image} in the column {wrong}, which is not a number"
            fix = "correct it, remove columns of text, or name the class column label"
            raise UserError("shard.labels.numbers", what, fix)
        if all(fields.values()):
            found[image] = {name: number for name, number in numbers.items() if number is not None}
    if not found:
        raise UserError("shard.labels.no_number", f"{table.path} holds no numbers", f"fill in {', '.join(columns)}")
    if without := len(images) - len(found):
        log.warning(f"{without:,} of {len(images):,} images in {root} have no numbers in {table.path}")
    return found
