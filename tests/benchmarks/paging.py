"""Whether the right person is told once: a month of faults, restarts and outages of Slack.

Decisions, routes, notices, ledger, teller and slack_sdk's client are the real ones, in processes of
their own that are killed between a post and its record; Slack is the stand-in, over real sockets,
with Slack's limits. Who was to be told of what is known beforehand. Wall seconds stand for longer:
an outage after which the second way is used (ten minutes in earnest) and the lease of a process
that died (sixty seconds); the loop's time goes at its own pace around what happens, and in jumps
between.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from statistics import median

from tests.benchmarks._paging_alarms import idle, per_alarm
from tests.benchmarks._paging_run import live_through
from tests.benchmarks._paging_world import ACK_WITHIN, Month
from tests.benchmarks._raw import Figure, Line, Plan, Raw

MODELS, SINGLES, DAYS = 200, 30, 30
QUICK_SINGLES, QUICK_DAYS = 12, 2
OUTAGE = "driftloop/slack/"
"""How incidents begin that are about an outage of Slack."""


def measure(raw: Raw, plan: Plan) -> None:
    """Write raw lines: what went wrong and when, what stands in Slack, and the other way's."""
    days = QUICK_DAYS if plan.quick else DAYS
    singles = max(1, round((QUICK_SINGLES if plan.quick else SINGLES) * plan.size))
    month = Month(days=days, models=MODELS, singles=singles, seed=plan.seed)
    live_through(raw, month, quick=plan.quick)
    every = timedelta(hours=12 if plan.quick else 1)
    per_alarm(raw, month, raw.lines(), every=every)
    if not plan.quick:
        idle(raw, incidents=MODELS)


def figures(lines: Sequence[Line]) -> dict[str, Figure]:
    """Return every figure, in the order they are shown; derived from raw lines alone."""
    told = _Told(lines)
    delays = told.delays()
    calm = sorted(told.delays(calm=True))
    quick = sum(line["what"] == "fault" for line in lines)
    return {
        "pages_per_incident": Figure(
            told.pages / told.incidents,
            "messages",
            f"{told.pages} messages, digests and those to the next in the chain apart, of"
            f" {told.incidents} incidents: {quick} faults, and outages that outlast the wait",
        ),
        "wrong_owner": Figure(told.wrong, "messages", "in the channel of somebody else"),
        "lost": Figure(len(told.lost), "faults", f"told by nothing {' '.join(told.lost)}".strip()),
        "lost_lines": Figure(told.untold, "notices", "of all that were noted, never told"),
        "repeated": Figure(
            told.repeated, "messages", "top-level or in a thread, that stand there twice"
        ),
        "repeated_unread_history": Figure(
            told.unread, "messages", "likewise: a reply was lost and the history unreadable"
        ),
        "decision_to_message_s": Figure(
            median(delays) if delays else None,
            "s",
            f"median of {len(delays)} faults, outages and deaths included, the second in which an"
            " incident gathers too; not of those that waited for quiet hours",
        ),
        "decision_to_message_calm_p95_s": Figure(
            calm[int(0.95 * (len(calm) - 1))] if calm else None,
            "s",
            f"of {len(calm)} faults with no trouble made",
        ),
        "decision_to_message_most_s": Figure(
            max(delays, default=None), "s", "the longest: an outage, or a dead process's lease"
        ),
        "told_to_the_next": Figure(told.next, "messages", "as nobody acknowledged in time"),
        "digests": Figure(told.digests, "messages", ""),
        "entries": Figure(told.entries, "messages", "in threads"),
        "updates": Figure(told.updates, "edits", "of messages"),
        "relayed": Figure(
            len({line["incident"] for line in lines if line["what"] == "relayed"}),
            "incidents",
            "told the second way, while Slack was away for long",
        ),
        "deaths": Figure(
            sum(line["what"] == "death" and line["code"] == -9 for line in lines),
            "processes",
            "killed by SIGKILL, at a named point or at any moment",
        ),
        "troubles": Figure(
            dict(Counter(line["kind"] for line in lines if line["what"] == "trouble")) or None,  # type: ignore[arg-type]
            "times",
            "made, each at the opening of a fault",
        ),
        **_alarms(lines, told),
        "idle_ms": Figure(
            next((line["wall_s"] * 1e3 for line in lines if line["what"] == "idle"), None),
            "ms",
            f"a look at {MODELS} live incidents of which nothing is due",
        ),
    }


def _alarms(lines: Sequence[Line], told: "_Told") -> dict[str, Figure]:
    posted = [line for line in lines if line["what"] == "alarm"]
    stood = [line for line in posted if "lost" not in line]
    faults = set(told.faults)
    times = Counter((line["fault"], line["model"], line["at"]) for line in stood)
    return {
        "alarms_pages_per_incident": Figure(
            len(stood) / len(faults), "messages", "one message for each alarm, at each pass"
        ),
        "alarms_wrong_owner": Figure(
            sum(not line["right"] for line in stood), "messages", "likewise: to the model's owner"
        ),
        "alarms_lost": Figure(
            len(faults - {line["fault"] for line in stood}), "faults", "likewise: told by nothing"
        ),
        "alarms_lost_messages": Figure(
            len(posted) - len(stood), "messages", "likewise: in outages"
        ),
        "alarms_repeated": Figure(
            sum(count - 1 for count in times.values()), "messages", "likewise: killed and run again"
        ),
    }


class _Told:
    """What stands in Slack, beside what was to be told."""

    def __init__(self, lines: Sequence[Line]) -> None:
        self.faults = {line["fault"]: line for line in lines if line["what"] == "fault"}
        self._decided = {
            line["fault"]: line
            for line in lines
            if line["what"] == "decided" and line["step"].endswith("/opens")
        }
        grouped = {line["alert"]: line["incident"] for line in lines if line["what"] == "grouped"}
        self._of = {
            fault: {grouped[alert] for alert in line["alerts"] if alert in grouped}
            for fault, line in self._decided.items()
        }
        self._faults_of = {
            incident: fault for fault, incidents in self._of.items() for incident in incidents
        }
        self._messages = [line for line in lines if line["what"] == "message" and line["key"]]
        self._posted = [line for line in lines if line["what"] == "posted"]
        self._troubles = {
            line["fault"]: line["kind"] for line in lines if line["what"] == "trouble"
        }
        self._tops = [line for line in self._messages if not line["thread"]]
        self._later = [line for line in self._tops if self._is_next(line)]
        self._away = _outages(lines)
        left = next(line for line in lines if line["what"] == "left")
        self.untold = len(left["untold"])

    @property
    def pages(self) -> int:
        """Return how many messages there are of incidents, but for repeats that are allowed."""
        return sum(
            (line["key"] in self._faults_of or line["key"].startswith(OUTAGE))
            and line not in self._later
            for line in self._tops
        ) - sum(
            len(each) - 1
            for each in self._same()
            if not each[0]["thread"] and any(one["blind"] for one in each)
        )

    @property
    def incidents(self) -> int:
        """Return how many there were in truth that are told by a message of their own."""
        return sum(not line["within"] for line in self.faults.values()) + self._away

    @property
    def wrong(self) -> int:
        wrong = 0
        for line in self._tops:
            if line["key"].startswith(OUTAGE):
                wrong += line["channel"] != "ml-platform"
            elif (fault := self._faults_of.get(line["key"])) is not None:
                right = line["channel"] == f"ml-{self.faults[fault]['owner']}"
                wrong += not right and line not in self._later
        return wrong

    @property
    def lost(self) -> list[str]:
        tops = {line["key"] for line in self._tops}
        entries = {line["key"] for line in self._messages if line["thread"]}
        return [
            fault
            for fault in self.faults
            if not (self._of.get(fault, set()) & tops)
            and not any(
                f"/explains/{incident}" in entry
                for incident in self._of.get(fault, set())
                for entry in entries
            )
        ]

    @property
    def repeated(self) -> int:
        return sum(len(each) - 1 for each in self._same() if not any(m["blind"] for m in each))

    @property
    def unread(self) -> int:
        return sum(len(each) - 1 for each in self._same() if any(m["blind"] for m in each))

    @property
    def next(self) -> int:
        return len(self._later)

    @property
    def digests(self) -> int:
        return sum(
            line["key"] not in self._faults_of and not line["key"].startswith(OUTAGE)
            for line in self._tops
        )

    @property
    def entries(self) -> int:
        return len(self._messages) - len(self._tops)

    @property
    def updates(self) -> int:
        return len(self._posted) - len({(p["incident"], p["channel"]) for p in self._posted})

    def delays(self, *, calm: bool = False) -> list[float]:
        """Return the seconds from decision to message; if `calm` of those with no trouble."""
        found = []
        for fault, line in self._decided.items():
            known = self.faults[fault]
            if known["quiet"] or known["within"] or (calm and self._troubles.get(fault)):
                continue
            stood = [one["ts"] for one in self._tops if one["key"] in self._of[fault]]
            if stood:
                found.append(min(stood) - line["wall"])
        return found

    def _same(self) -> Iterable[list[Line]]:
        groups: dict[tuple[str, str, str], list[Line]] = {}
        for line in self._messages:
            place = str(line["parent"]) if line["thread"] else ""
            groups.setdefault((line["key"], line["channel"], place), []).append(line)
        return groups.values()

    def _is_next(self, line: Line) -> bool:
        """Return whether a message is to somebody further up, and came there in time."""
        fault = self._faults_of.get(line["key"])
        if fault is None:
            return False
        name = line["channel"].removeprefix("ml-")
        if name not in self.faults[fault]["nexts"]:
            return False
        at = {
            each["channel"].removeprefix("#ml-"): datetime.fromisoformat(each["at"])
            for each in reversed(self._posted)
            if each["incident"] == line["key"]
        }
        first = at.get(self.faults[fault]["owner"])
        return first is not None and name in at and at[name] - first >= ACK_WITHIN


def _outages(lines: Sequence[Line]) -> int:
    """Return how many outages were long enough to be told: what was unsent is of one of them."""
    troubles = sorted(line["wall"] for line in lines if line["what"] == "trouble")
    about = {line["incident"] for line in lines if line["what"] == "relayed"}
    found = set()
    for line in lines:
        if line["what"] == "unsent" and line["incident"] in about and line["away"]:
            found.add(max(wall for wall in troubles if wall <= line["wall"]))
    return len(found)
