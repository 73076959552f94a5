"""What is to be told is noted first: which incident it is part of, and that it is to be told."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta

import msgspec

from driftloop.incident import OF_TELLING, opens
from driftloop.loop.standing import INCIDENT, Standing, noted
from driftloop.ports import Clock, Ledger
from driftloop.records import Act, Acted, Grouped, Noted, Notice, Paged, Posted, Status

EARLY = "early/"
"""How claims begin of what was to be told before what it follows; the body is the notice."""
OLD = "notice/"
"""Likewise of a driftloop that told without noting."""
_FREE = timedelta(0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Noter:
    """Notes notices; whoever comes second to one finds it noted."""

    standing: Standing
    ledger: Ledger
    clock: Clock

    def note(self, notices: Sequence[Notice]) -> Mapping[str, str]:
        """Return which incident each notice is part of, by its key; without those that are early.

        Of two processes that note at once the first says what an alert is part of.
        """
        keys = [notice.key for notice in notices]
        known = noted(self.ledger, keys)
        found: dict[str, str] = {}
        new: list[tuple[Noted, str]] = []
        homes = self._homes(notices)
        for notice in notices:
            home = homes.get(notice.incident)
            if home is None:
                self.ledger.claim(
                    f"{EARLY}{notice.incident}/{notice.key}", lease=_FREE, body=_body(notice)
                )
                continue
            found[notice.key] = home
            if notice.key not in known:
                fact = Noted(model=notice.model, at=self.clock.now(), notice=notice, incident=home)
                new.append((fact, notice.key))
        self.ledger.append_all(new)
        for home in dict.fromkeys(fact.incident for fact, _ in new):
            self._wake(home)
        for alert in {notice.incident for notice in notices if opens(notice)}:
            found |= self._take_up(f"{EARLY}{alert}/")
        return found

    def take_up_old(self) -> None:
        """Note what an older driftloop meant to tell, and had not."""
        self._take_up(OLD)

    def _take_up(self, prefix: str) -> Mapping[str, str]:
        left = self.ledger.live(prefix)
        if not left:
            return {}
        notices = [msgspec.json.decode(body, type=Notice) for _, body in left]
        keys = {notice.key: key for notice, (key, _) in zip(notices, left, strict=True)}
        # An opening first: the others are early without it.
        found = self.note(sorted(notices, key=lambda notice: not opens(notice)))
        for notice in found:
            if notice in keys:
                self.ledger.finish(keys[notice], "noted")
        return found

    def _wake(self, incident: str) -> None:
        """Let an incident be looked at that was over and told to its end."""
        claimed = self.ledger.claim(INCIDENT + incident, lease=_FREE)
        if claimed.outcome is not None:
            self.ledger.reopen(INCIDENT + incident)

    def _homes(self, notices: Iterable[Notice]) -> dict[str, str]:
        """Return the incident of each alert, in which it is from now on."""
        homes: dict[str, str] = {}
        begun: dict[str, Grouped] = {}
        groups: dict[tuple[str, str], str] = {}
        for notice in notices:
            alert = notice.incident
            if notice.stage in OF_TELLING:
                homes[alert] = alert
            elif alert not in homes and (home := self._known(notice)) is not None:
                homes[alert] = home
            elif alert not in homes and alert not in begun and opens(notice):
                group = (notice.group, notice.owner)
                if not notice.group or group not in groups:
                    groups[group] = self._home(notice)
                begun[alert] = Grouped(
                    model=notice.model,
                    at=self.clock.now(),
                    alert=alert,
                    incident=groups[group],
                    group=notice.group,
                    owner=notice.owner,
                )
        self.ledger.append_all([(fact, alert) for alert, fact in begun.items()])
        for alert, mine in begun.items():
            # Another process may have been first.
            homes[alert] = (self.ledger.fact(Grouped, key=alert) or mine).incident
        return homes

    def _known(self, notice: Notice) -> str | None:
        grouped = self.ledger.fact(Grouped, key=notice.incident)
        if grouped is not None:
            return grouped.incident
        for fact in self.ledger.facts(Paged, model=notice.model):
            # The first that was told is what opened it, for a driftloop that did not group.
            if fact.notice.incident == notice.incident:
                return self._adopted(fact)
        return None

    def _adopted(self, first: Paged) -> str:
        """Return the incident of an alert that was told before there were any; it stands alone."""
        notice, alert = first.notice, first.notice.incident
        self._begin(alert, group="", owner=notice.owner)
        common = {"model": first.model, "at": first.at, "incident": alert}
        grouped = Grouped(alert=alert, group="", owner=notice.owner, **common)  # type: ignore[arg-type]
        self.ledger.append(grouped, key=alert)
        self.ledger.append(Noted(notice=notice, **common), key=notice.key)  # type: ignore[arg-type]
        stands = Posted(channel=notice.channel, receipt=first.receipt, shown="", **common)  # type: ignore[arg-type]
        self.ledger.append(stands, key=f"{alert}/{notice.channel}/{first.receipt.ts}")
        return alert

    def _home(self, notice: Notice) -> str:
        """Return the incident that an alert joins, or begins."""
        if not notice.group:
            home = notice.incident
        else:
            prefix = f"{notice.group}/{notice.owner or '-'}/"
            mine = _claimed(notice.group, notice.owner)
            live, finished = self._counted(INCIDENT + prefix)
            for key, body in reversed(live):
                home = key.removeprefix(INCIDENT)
                if body == mine and not self._is_over(home):
                    return home
            home = f"{prefix}{finished + len(live)}"
        if self._begin(home, group=notice.group, owner=notice.owner):
            self._silence(home, notice)
        return home

    def _counted(self, prefix: str) -> tuple[tuple[tuple[str, str], ...], int]:
        """Return what lives under `prefix` and how many are finished, as of one moment.

        One that another process finishes in between would count twice, and the same cause get
        another number there.
        """
        while True:
            finished = self.ledger.finished(prefix)
            live = self.ledger.live(prefix)
            if self.ledger.finished(prefix) == finished:
                return live, finished

    def _is_over(self, incident: str) -> bool:
        found = self.standing.folded(self.ledger.incident(incident), self.clock.now(), {})
        return found is not None and found.status is Status.RESOLVED

    def _begin(self, incident: str, *, group: str, owner: str) -> bool:
        """Return whether nobody had begun it."""
        key = INCIDENT + incident
        claimed = self.ledger.claim(key, lease=_FREE, body=_claimed(group, owner))
        return claimed.mine and not claimed.retaken

    def _silence(self, incident: str, notice: Notice) -> None:
        """Let a silence go on that holds for the same group, or the same model."""
        now = self.clock.now()
        newest = {f.incident: f for f in self.ledger.facts(Acted) if f.act is Act.SILENCE}
        for act in newest.values():
            if act.until is not None and act.until <= now:
                continue
            facts = self.ledger.incident(act.incident)
            of = self.standing.folded(facts, now)
            if of is None or not (act.until_version or act.until):
                continue
            same = bool(notice.group) and (of.group, of.owner) == (notice.group, notice.owner)
            same |= not notice.group and notice.model in of.models
            over = of.status is not Status.SILENCED and act.until_version
            if same and not over:
                key = f"{incident}/silence-of/{act.incident}"
                self.ledger.append(replace(act, at=now, incident=incident, key=key), key=key)
                return


def _claimed(group: str, owner: str) -> str:
    return json.dumps({"group": group, "owner": owner})


def _body(notice: Notice) -> str:
    return msgspec.json.encode(notice).decode()
