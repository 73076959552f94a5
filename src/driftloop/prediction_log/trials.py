"""What the log knows of a rollout: the challenger's answers beside the champion's."""

from datetime import datetime
from typing import Protocol

import pyarrow as pa

from driftloop.ports import Trial
from driftloop.records import Counts, Phase, Role, Rollout
from driftloop.spec import Family

MOST = 100_000
"""The newest rows of a rollout that are compared; more would tell nothing more."""


class _Asked(Protocol):
    def query(self, sql: str, params: dict[str, object]) -> pa.Table: ...


class LogTrials:
    """Reads trials from `lake`; implements `ports.Trials`."""

    def __init__(self, lake: _Asked) -> None:
        """Read nothing yet."""
        self._lake = lake

    def trial(self, family: Family, rollout: Rollout) -> Trial:
        """Return what was logged of `rollout`; see `ports.Trials`.

        Of a challenger that became champion all since the rollout began is taken: nobody answers
        beside it any more.
        """
        since = rollout.begun if rollout.phase is Phase.WATCHED else rollout.since
        asked: dict[str, object] = {"model": rollout.model, "version": rollout.version}
        asked["champion"] = rollout.champion
        shadow = rollout.shadows
        return Trial(
            challenger=self._counts(family, rollout, rollout.version, since, shadow=shadow),
            champion=self._counts(family, rollout, rollout.champion, since, shadow=False),
            both=self._lake.query(_both(family), {**asked, "since": rollout.begun}),
            apart=self._lake.query(_apart(family), {**asked, "since": since}),
        )

    def _counts(
        self, family: Family, rollout: Rollout, version: int, since: datetime, *, shadow: bool
    ) -> Counts:
        roles = [Role.SHADOW] if shadow else [Role.CANARY, Role.CHAMPION]
        found = self._lake.query(
            f"""
            SELECT requests, errors, seconds FROM lake.{family.table}_served
            WHERE model = $model AND version = $version AND "start" >= $since
                  AND list_contains($roles, role)
            """,  # noqa: S608 - identifiers come from the checked spec
            {
                "model": rollout.model,
                "version": version,
                "since": since,
                "roles": [str(role) for role in roles],
            },
        ).to_pylist()
        return Counts(
            requests=sum(row["requests"] for row in found),
            errors=sum(row["errors"] for row in found),
            seconds=tuple(map(sum, zip(*(row["seconds"] for row in found), strict=True))),
        )


def _both(family: Family) -> str:
    """Return the query for the rows of the shadow, each with what the champion answered."""
    return f"""
        WITH shadow AS (
            SELECT id, event_time, predicted_at, prediction FROM lake.{family.table}_shadows
            WHERE model = $model AND version = $version AND predicted_at >= $since
            QUALIFY row_number() OVER (PARTITION BY id ORDER BY arrived_at, rowid) = 1
            ORDER BY predicted_at DESC LIMIT {MOST}
        ), champion AS (
            SELECT id, prediction FROM lake.{family.table}_predictions
            WHERE model = $model AND version = $champion AND predicted_at >= $since
            QUALIFY row_number() OVER (PARTITION BY id ORDER BY arrived_at, rowid) = 1
        ), {_known(family, "shadow")}
        SELECT event_time, predicted_at, shadow.prediction AS challenger,
               champion.prediction AS champion, label
        FROM shadow JOIN champion USING (id) LEFT JOIN known USING (id)
        WHERE shadow.prediction IS NOT NULL ORDER BY event_time
    """  # noqa: S608 - identifiers come from the checked spec


def _apart(family: Family) -> str:
    """Return the query for the rows that one of the two answered."""
    return f"""
        WITH own AS (
            SELECT id, version, prediction FROM lake.{family.table}_predictions
            WHERE model = $model AND version IN ($version, $champion) AND predicted_at >= $since
            QUALIFY row_number() OVER (PARTITION BY id ORDER BY arrived_at, rowid) = 1
                AND row_number() OVER (PARTITION BY version ORDER BY predicted_at DESC) <= {MOST}
        ), {_known(family, "own")}
        SELECT version, prediction, label FROM own LEFT JOIN known USING (id)
    """  # noqa: S608 - identifiers come from the checked spec


def _known(family: Family, rows: str) -> str:
    return f"""known AS (
            SELECT id, arg_max(value, (arrived_at, rowid)) AS label
            FROM lake.{family.table}_labels
            WHERE model = $model AND id IN (SELECT id FROM {rows}) GROUP BY id
        )"""  # noqa: S608 - identifiers come from the checked spec
