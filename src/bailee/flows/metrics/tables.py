"""Writes points as Parquet: a row each, a column for each field of the catalogue, nobody's name in it."""

import os
from collections.abc import Sequence
from pathlib import Path

from bailee.files import create_private
from bailee.flows.metrics.points import load_catalogue
from bailee.flows.metrics.results import Held
from bailee.manifests.catalogues import FieldType
from bailee.policy.problems import Problem


def write_parquet(points: Sequence[Held], path: Path) -> None:
    """Write points into a new file.

    Raises:
        Problem: the file is there or cannot be written, or pyarrow is not installed.
    """
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ModuleNotFoundError:
        raise Problem(
            "pyarrow is not installed", where="--parquet", fix="install it: pip install 'bailee[dataset]'"
        ) from None
    kinds: dict[str, set[FieldType]] = {}
    for entry in load_catalogue().entries.values():
        for field in entry.fields:
            kinds.setdefault(field.name, set()).add(field.type)
    columns: dict[str, object] = {
        "hour": pa.array([point.hour for point in points], pa.timestamp("s", tz="UTC")),
        "name": pa.array([point.name for point in points], pa.string()),
    }
    for name, types in sorted(kinds.items()):
        values = [point.fields.get(name) for point in points]
        if types == {FieldType.NUMBER}:
            columns[name] = pa.array(values, pa.float64())
        else:
            texts = [None if value is None else str(value) for value in values]
            columns[name] = pa.array(texts, pa.string())
    try:
        descriptor = create_private(path)
    except OSError as fault:
        raise Problem(
            f"the file cannot be written: {fault.strerror}", where=f"--parquet {path}", fix="name a new file"
        ) from None
    with os.fdopen(descriptor, "wb") as file:
        pq.write_table(pa.table(columns), file, compression="zstd")
