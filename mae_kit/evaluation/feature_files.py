"""Features in files: Parquet and CSV with what is known of each image, NumPy and safetensors with that in a CSV file
next to them. All are written a batch at a time.
"""

import csv
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from mae_kit.data.index.open import Index
from mae_kit.errors import UserError
from mae_kit.evaluation.embeddings import EmbeddedImages, Embeddings, Token
from mae_kit.files.durable import must_take_files, replacing
from mae_kit.inert import cell

COLUMNS = ("shard", "key", "file", "label", "class")
_SEPARATOR = ";"  # of the classes of one image, as in a label table


def check_file(file: Path, token: Token) -> None:
    """Refuse, before any work, a file that cannot be written.

    Raises:
        UserError: `out.suffix`: another format; `out.csv`: all patches as CSV; `out.parquet`: no pyarrow; `out.folder`.
    """
    must_take_files(file.parent)
    if file.suffix not in WRITERS:
        raise UserError(
            "out.suffix", f"--out {file} is not a {', '.join(WRITERS)} file", "give, for example, features.npy"
        )
    if file.suffix == ".csv" and token == "patches":
        raise UserError("out.csv", "a CSV file does not hold the features of all patches", "give a .parquet or .npy")
    if file.suffix == ".parquet":
        _arrow()


def write_features(file: Path, images: EmbeddedImages, about: dict[str, Any]) -> list[Path]:
    """Write the features of all images.

    Args:
        file: With a suffix of `WRITERS`.
        images: In the order of the rows.
        about: What the features are, for formats that have room for it.

    Returns:
        The files: this one, and for .npy and .safetensors a CSV file of the same name.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    table = [] if file.suffix in (".parquet", ".csv") else [file.with_suffix(".csv")]
    for path in table:
        _write_csv(path, images, features=False)
    WRITERS[file.suffix](file, images, about)
    return [file, *table]


def _write_csv(file: Path, images: EmbeddedImages, features: bool = True) -> None:
    numbers = [str(number) for number in range(images.shape[0])] if features else []
    with replacing(file) as making, making.open("w", encoding="utf-8", newline="") as opened:
        lines = csv.writer(opened, lineterminator="\n")
        lines.writerow([*COLUMNS, *numbers])
        for batch in images:
            values = batch.features.tolist() if features else [[]] * len(batch.keys)
            for known, row in zip(_described(images.index, batch), values, strict=True):
                lines.writerow([*map(_text, known), *(f"{value:.9g}" for value in row)])


def _write_numpy(file: Path, images: EmbeddedImages, about: dict[str, Any]) -> None:
    header = {"descr": "<f4", "fortran_order": False, "shape": (len(images.rows), *images.shape)}
    with replacing(file) as making, making.open("wb") as opened:
        np.lib.format.write_array_header_2_0(opened, header)
        _write_values(opened, images)


def _write_safetensors(file: Path, images: EmbeddedImages, about: dict[str, Any]) -> None:
    shape = [len(images.rows), *images.shape]
    tensor = {"dtype": "F32", "shape": shape, "data_offsets": [0, 4 * math.prod(shape)]}
    header = json.dumps({"__metadata__": _metadata(about), "features": tensor}).encode()
    header += b" " * (-len(header) % 8)
    with replacing(file) as making, making.open("wb") as opened:
        opened.write(len(header).to_bytes(8, "little") + header)
        _write_values(opened, images)


def _write_values(opened: BinaryIO, images: EmbeddedImages) -> None:
    for batch in images:
        opened.write(batch.features.astype("<f4").tobytes())


def _write_parquet(file: Path, images: EmbeddedImages, about: dict[str, Any]) -> None:
    arrow, parquet = _arrow()
    each = arrow.list_ if images.index.multi_label else lambda kind: kind
    kinds = [*[arrow.string()] * 3, each(arrow.int64()), each(arrow.string())]
    features = arrow.float32()
    for width in reversed(images.shape):
        features = arrow.list_(features, width)
    fields = [*zip(COLUMNS, kinds, strict=True), ("features", features)]
    schema = arrow.schema(fields, metadata=_metadata(about))
    with replacing(file) as making, parquet.ParquetWriter(making, schema) as writer:
        for batch in images:
            known = zip(*_described(images.index, batch), strict=True)
            columns = [arrow.array(column, kind) for column, kind in zip(known, kinds, strict=True)]
            values = arrow.array(batch.features.ravel())
            for width in reversed(images.shape):
                values = arrow.FixedSizeListArray.from_arrays(values, width)
            writer.write_table(arrow.table([*columns, values], schema=schema))


WRITERS = {
    ".parquet": _write_parquet,
    ".npy": _write_numpy,
    ".safetensors": _write_safetensors,
    ".csv": lambda file, images, about: _write_csv(file, images),
}


def _described(index: Index, batch: Embeddings) -> Iterator[tuple[Any, ...]]:
    """Of each image the values of `COLUMNS`: numbers and names of classes are lists where it may have several."""
    names = index.classes or [str(number) for number in range(index.class_count)]
    for shard, key, file, label in zip(batch.shards, batch.keys, batch.files, batch.labels, strict=True):
        if index.multi_label:
            numbers = np.flatnonzero(label).tolist()
            yield shard, key, file, numbers, [names[number] for number in numbers]
        else:
            yield shard, key, file, *((int(label), names[label]) if label >= 0 else (None, None))


def _text(value: str | int | list[Any] | None) -> str:
    """A field of a CSV file, without formulas."""
    if isinstance(value, list):
        return _SEPARATOR.join(map(_text, value))
    return "" if value is None else cell(str(value))


def _metadata(about: dict[str, Any]) -> dict[str, str]:
    return {"mae_kit": json.dumps(about)}


def _arrow() -> tuple[Any, Any]:
    """The library that writes Parquet."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        what = "Parquet is written by the library `pyarrow`"
        raise UserError("out.parquet", what, "pip install 'mae_kit[parquet]', or give a .npy file") from None
    return pyarrow, pyarrow.parquet
