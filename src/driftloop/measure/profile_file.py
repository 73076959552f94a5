"""A champion's profile as a file, which lies beside its reference."""

import json
import os
from base64 import b64decode, b64encode
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from driftloop.errors import ArtifactError
from driftloop.measure.outlook import Outlook
from driftloop.measure.profile import Profile, Series

LAYOUT = 3
"""Version of the files."""


def write_profile(profile: Profile, file: Path) -> None:
    """Write a profile as a small Parquet file, whole or not at all.

    Raises:
        OSError: it cannot be written.
    """
    lists = {name: getattr(profile, name).T.astype(np.float32) for name in _LISTS}
    table = pa.table(
        {
            **{
                name: pa.array([getattr(each, name) for each in profile.series], pa.string())
                for name in ("metric", "column", "level")
            },
            **{name: getattr(profile, name) for name in _NUMBERS},
            **{name: pa.array(list(each), pa.list_(pa.float32())) for name, each in lists.items()},
        }
    )
    about = {
        "layout": LAYOUT,
        "cadence": profile.cadence,
        "clip": profile.clip if np.isfinite(profile.clip) else None,
        "loss": profile.loss,
        "outlook": None if profile.outlook is None else _plain(profile.outlook),
    }
    part = file.with_name(f"{file.name}.{os.getpid()}.part")
    try:
        metadata = {"profile": json.dumps(about)}
        pq.write_table(table.replace_schema_metadata(metadata), part, compression="zstd")
        part.replace(file)
    except OSError:
        with suppress(OSError):
            part.unlink()
        raise


def read_profile(file: Path) -> Profile | None:
    """Return a profile from its file; None where there is none, or of another layout.

    Raises:
        ArtifactError: it is damaged.
    """
    try:
        table = pq.read_table(file, use_threads=False)
    except FileNotFoundError:
        return None
    except (OSError, pa.ArrowException) as error:
        raise ArtifactError.unreadable(file, error) from error
    about = json.loads((table.schema.metadata or {}).get(b"profile", b"{}"))
    if about.get("layout") != LAYOUT:
        return None
    names = zip(*(table[name].to_pylist() for name in ("metric", "column", "level")), strict=True)
    count = table.num_rows
    lists = {
        name: table[name]
        .combine_chunks()
        .flatten()
        .to_numpy(zero_copy_only=False)
        .astype(np.float64)
        .reshape(count, -1)
        .T
        for name in _LISTS
    }
    clip, kept = about["clip"], about["outlook"]
    return Profile(
        series=tuple(Series(metric=m, column=c, level=level) for m, c, level in names),
        cadence=about["cadence"],
        clip=float("inf") if clip is None else clip,
        loss=about["loss"],
        outlook=None if kept is None else _outlook(kept),
        **lists,
        **{name: table[name].to_numpy() for name in _NUMBERS},
    )


def _plain(model: Outlook) -> dict[str, object]:
    arrays = {name: getattr(model, name).astype("<f8").tobytes() for name in _EFFECTS}
    texts = {name: b64encode(each).decode() for name, each in arrays.items()}
    return {"names": model.names, **texts}


def _outlook(kept: Mapping[str, Any]) -> Outlook:
    effects, unsure, usual = (np.frombuffer(b64decode(kept[name]), "<f8") for name in _EFFECTS)
    return Outlook(tuple(kept["names"]), effects, unsure.reshape(len(effects), -1), usual)


_EFFECTS = ("effects", "unsure", "usual")
_LISTS = ("levels", "errors")
_NUMBERS = ("common", "noise", "phi", "white", "scatter", "skew", "unit")
