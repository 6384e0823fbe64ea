"""Which paths have fallen silent: a path is an own address and a peer's place. Pure; the clock is passed in.

What comes from the peer says that the path works. When nothing has come for longer than is usual while something is
owed (data of ours that nobody has acknowledged), or just after dense traffic towards us, the path is checked: up to
PROBES small packets, a few milliseconds apart. An answer, or anything else from the peer, ends the check; when the time
that an answer may take has passed, the path counts as silent. All flows of a path share its checks.

    heard ---- silence beyond the usual ----> probe, probe, probe ---- patience ----> silent

Checks of a path that answers come ever more rarely until traffic comes again, and end where nothing is owed. A silent
path that still has flows is checked now and then.

A judge that was itself held up is no judge: when `run` is called late, the time that was missed does not count, and for
a while answers may take longer, as the peer may have as busy a machine.
"""

from __future__ import annotations

import heapq
import itertools
import math
from dataclasses import dataclass, field
from typing import Protocol

from serval_node.sal.path_figures import LONGEST_GAP, Gaps, RoundTrip
from serval_node.sal.places import Place
from serval_node.wire.ipv4 import Address

PathKey = tuple[Address, Place]
"""Own address, peer's place."""

# The shortest silence that is looked into.
FLOOR = 0.010
PROBES = 3
SPACING = 0.004
# The peer may acknowledge the first packet after a pause by its delayed ACK only (40 ms in Linux).
DELAYED_ACK = 0.05
# What an answer may take on a path of which nothing is known, and more patience where nothing was heard ever.
UNKNOWN_PATIENCE, NEW_PATH_PATIENCE = 0.5, 0.2
LONGEST_WAIT = 5.0
# Traffic towards us is dense after this many stretches without a gap of DENSE_GAP; then its end is looked into.
DENSE, DENSE_GAP, DENSE_KEPT = 16, 0.1, 64
IDLE_CHECKS = 6
# Single probes on a path that is in use, for its round trip.
MEASURE_FIRST, MEASURE_EVERY, MEASURE_VAINLY = 0.1, 1.0, 3
RECHECK_FIRST, RECHECK_LONGEST, RECHECKS = 1.0, 30.0, 10
# Many paths may fall silent at once; so many packets leave at a time.
PROBES_AT_ONCE, NEXT_LOT = 32, 0.005
# Later than this is late: epoll counts in whole milliseconds.
TOLERANCE = 0.003
_FORGOTTEN_AFTER, _FIRST_SWEEP = 60.0, 64


@dataclass(frozen=True, slots=True)
class Ask:
    """Send a probe with this number for the path, by this flow."""

    path: PathKey
    flow_id: int
    number: int


@dataclass(frozen=True, slots=True)
class Silent:
    """No answer on this path; nothing has come since ``since``, which is not before a flow came there."""

    path: PathKey
    since: float


@dataclass(frozen=True, slots=True)
class Back:
    """A silent path was heard of."""

    path: PathKey


@dataclass(frozen=True, slots=True)
class Answers:
    """A check was answered by its probes alone: the path works, and what was to come on it does not come."""

    path: PathKey


class Flows(Protocol):
    """What the judge asks about flows."""

    def is_at(self, flow_id: int, path: PathKey) -> bool:
        """Whether a flow is open and uses this path."""

    def any_at(self, path: PathKey) -> int | None:
        """Some open flow that uses this path."""

    def used_since(self, path: PathKey) -> float | None:
        """When the first of the open flows that use this path came to it."""


@dataclass(slots=True)
class Check:
    """A check under way."""

    started: float
    patience: float
    sent: int = 0
    again: float = 0.0


@dataclass(slots=True)
class Path:
    """What is known of a path. ``checks`` counts those that were answered since the last traffic, or since something
    was owed for the first time after it; ``idle_checks`` those since the last traffic.
    """

    key: PathKey
    rtt: RoundTrip
    used: float
    marked: bool
    flow_id: int
    gaps: Gaps = field(default_factory=Gaps)
    heard: float | None = None
    owing: dict[tuple[int, bool], float] = field(default_factory=dict)
    dense: int = 0
    checks: int = 0
    idle_checks: int = 0
    checked: float = 0.0
    check: Check | None = None
    measure: float | None = None
    measured_vainly: int = 0
    silent_since: float | None = None
    rechecks: int = 0
    recheck: float | None = None
    timer: float | None = None
    probes: dict[int, float] = field(default_factory=dict)  # number: when it was sent

    @property
    def answers(self) -> bool:
        """Whether the peer is known to answer probes: one that is not a node of this project has to show it."""
        return self.marked or self.rtt.samples > 0


def _denser(dense: int, gap: float) -> int:
    if gap < DENSE_GAP:
        return min(dense + 1, DENSE_KEPT)
    return 0 if gap > LONGEST_GAP else dense // 2


class Liveness:
    """Judges the paths of one stack. ``counters``: probes_sent, probes_answered, paths_silent, false_alarms."""

    def __init__(self) -> None:
        self.counters = dict.fromkeys(("probes_sent", "probes_answered", "paths_silent", "false_alarms"), 0)
        self._paths: dict[PathKey, Path] = {}
        self._timers: list[tuple[float, int, Path]] = []
        self._order = itertools.count(1)
        self._numbers = itertools.count(1)
        self._asked: dict[int, Path] = {}
        self._late, self._late_at = 0.0, 0.0  # how late this node was lately, halved every second
        self._sweep_at = _FIRST_SWEEP

    # -- what the flows tell

    def traffic(
        self,
        key: PathKey,
        flow_id: int,
        now: float,
        *,
        heard: float | None,
        owing: bool,
        gap: float | None = None,
        payload: bool = False,
        control: bool = False,
        marked: bool = True,
        rtt: float | None = None,
    ) -> list[Back]:
        """A flow on this path had traffic. ``heard``: when its peer's last packet came, if one did, ``gap`` the longest
        silence before it in this stretch, ``payload`` whether data was in it. ``owing``: something of ours is
        unacknowledged, data or (``control``) a packet of the SAL. ``rtt`` is what the flow's control packets took.
        """
        path = self._path(key, flow_id, now, marked, rtt)
        path.used, path.flow_id, path.marked = now, flow_id, marked
        back: list[Back] = []
        if heard is not None and (path.heard is None or heard > path.heard):
            if gap is not None:
                path.gaps.add(gap, now)
                if payload:
                    path.dense = _denser(path.dense, gap)
            path.heard, path.check, path.checks, path.idle_checks = heard, None, 0, 0
            back = self._works(path, heard)
        if not owing:
            path.owing.pop((flow_id, control), None)
        elif (flow_id, control) not in path.owing:
            if not path.owing:
                path.checks = 0  # whatever was asked while nothing was owed
            path.owing[flow_id, control] = now
        if path.measure is None and (path.answers or path.measured_vainly < MEASURE_VAINLY):
            path.measure = now + (MEASURE_EVERY if path.rtt.samples else MEASURE_FIRST)
        self._arm(path)
        return back

    def heard(self, key: PathKey, now: float) -> list[Back]:
        """Something came on this path that is no traffic: control, a probe of the peer's. It says that the path works,
        and nothing about what comes next: each end's probes must not keep the other's going.
        """
        path = self._paths.get(key)
        if path is None:
            return []
        if not path.marked and path.silent_since is None:
            self._answered_in_its_own_way(path, now)
        return self._alive(path, now)

    def waits(self, key: PathKey, flow_id: int, now: float, *, marked: bool, rtt: float | None) -> None:
        """The SAL itself has asked this flow's peer for an answer: it moved here, or closes."""
        path = self._path(key, flow_id, now, marked, rtt)
        if path.silent_since is not None:
            path.rechecks, path.recheck = 0, now + RECHECK_FIRST
        self.traffic(key, flow_id, now, heard=None, owing=True, control=True, marked=marked, rtt=rtt)

    def settled(self, key: PathKey, flow_id: int) -> None:
        """What the SAL asked for has come."""
        path = self._paths.get(key)
        if path is not None:
            path.owing.pop((flow_id, True), None)

    def answered(self, key: PathKey, number: int, now: float) -> list[Back | Answers]:
        """The answer to a probe has come on this path."""
        path = self._asked.pop(number, None)
        if path is None:
            return [*self.heard(key, now)]
        self.counters["probes_answered"] += 1
        path.rtt.add(now - path.probes.pop(number))
        path.measured_vainly = 0
        if path.silent_since is not None and path.check is None:
            # To a probe of the check that failed: the verdict was rash.
            self.counters["false_alarms"] += 1
        answers = [Answers(path.key)] if path.check is not None else []
        return [*self._alive(path, now), *answers]

    def silent_since(self, key: PathKey) -> float | None:
        """Since when nothing has come on a path that counts as silent; None for any other."""
        path = self._paths.get(key)
        return None if path is None else path.silent_since

    def _answered_in_its_own_way(self, path: Path, now: float) -> None:
        """An original answers a probe by a bare ACK, without a number: a round trip only if one probe is out."""
        if not path.probes:
            return
        if len(path.probes) == 1:
            path.rtt.add(now - next(iter(path.probes.values())))
        self._forget_probes(path)
        self.counters["probes_answered"] += 1
        path.measured_vainly = 0

    def _alive(self, path: Path, now: float) -> list[Back]:
        if path.check is not None:
            path.check = None
            path.checks += 1
            path.idle_checks += 1
        path.checked = now
        back = self._works(path, now)
        self._arm(path)
        return back

    def _works(self, path: Path, at: float) -> list[Back]:
        if path.heard is None:
            path.heard = at
        if path.silent_since is None:
            return []
        path.silent_since = path.recheck = None
        path.heard = at
        return [Back(path.key)]

    def _path(self, key: PathKey, flow_id: int, now: float, marked: bool, rtt: float | None) -> Path:
        path = self._paths.get(key)
        if path is None:
            if len(self._paths) >= self._sweep_at:
                self._sweep(now)
            path = self._paths[key] = Path(key, RoundTrip(rtt), now, marked, flow_id)
        elif path.rtt.mean is None:
            path.rtt.mean = rtt
        return path

    def _sweep(self, now: float) -> None:
        for key, path in list(self._paths.items()):
            if path.used + _FORGOTTEN_AFTER < now and path.timer is None:
                self._forget_probes(path)
                del self._paths[key]
        self._sweep_at = max(_FIRST_SWEEP, 2 * len(self._paths))

    def forget_all(self) -> None:
        """Nothing is judged any more; the counters stay."""
        self._paths.clear()
        self._timers.clear()
        self._asked.clear()

    # -- time

    def next_timer(self) -> float | None:
        """When `run` wants to be called."""
        timers = self._timers
        while timers and timers[0][2].timer != timers[0][0]:
            heapq.heappop(timers)
        return timers[0][0] if timers else None

    def run(self, now: float, flows: Flows) -> list[Ask | Silent]:
        """Do what is due: probes to send, and paths that were found silent."""
        when = self.next_timer()
        if when is None or when > now:
            return []
        self._late *= math.pow(0.5, now - self._late_at)
        self._late_at = now
        if now - when > TOLERANCE:
            self._excuse(now - when, now)
        done: list[Ask | Silent] = []
        left = PROBES_AT_ONCE
        while (when := self.next_timer()) is not None and when <= now:
            path = heapq.heappop(self._timers)[2]
            path.timer = None
            due = self._due(path)
            if due is not None and due <= now:
                if not left:
                    self._arm(path, now + NEXT_LOT)
                    continue
                out = self._act(path, now, flows)
                left -= sum(isinstance(item, Ask) for item in out)
                done += out
            self._arm(path)
        return done

    def _excuse(self, late: float, now: float) -> None:
        """This node was not there: nobody's silence."""
        self._late = max(late, self._late)
        for path in self._paths.values():
            if path.timer is None:
                continue
            path.checked += late
            if path.heard is not None:
                path.heard = min(path.heard + late, now)
            if path.check is not None:
                path.check.started += 2 * late  # and the answers may be as late
            for owed, since in path.owing.items():
                path.owing[owed] = min(since + late, now)

    def _patience(self, path: Path, now: float) -> float:
        """How long after the first probe the answer may come. Gaps in the traffic say how busy the peer is, this
        node's own lateness how busy it is here.
        """
        longest = path.rtt.longest()
        if longest is None:
            return UNKNOWN_PATIENCE
        patience = longest + path.gaps.slack(now) + self._late
        return patience if path.heard is not None else max(2 * patience, NEW_PATH_PATIENCE)

    # -- what is due on a path

    def _due(self, path: Path) -> float | None:
        check = path.check
        if check is not None:
            return check.again if check.sent < PROBES else check.started + check.patience
        if path.silent_since is not None:
            return path.recheck
        times = [path.measure, self._next_check(path) if path.answers else None]
        return min((time for time in times if time is not None), default=None)

    def _next_check(self, path: Path) -> float | None:
        wait = max(FLOOR, path.gaps.usual())
        if path.owing:
            since = min(path.owing.values())
            if path.heard is None or path.heard < since:
                # The first packets after a pause.
                wait = max(wait, 1.25 * (path.rtt.mean or 0.0) + DELAYED_ACK)
            else:
                since = path.heard
            if not path.checks:
                return since + wait
            return max(since, path.checked) + min(wait * (1 << min(path.checks, 16)), LONGEST_WAIT)
        asked = path.idle_checks
        if path.heard is not None and path.dense >= DENSE and asked < IDLE_CHECKS:
            return path.heard + wait if not asked else path.checked + wait * (1 << 2 * asked)
        return None

    def _arm(self, path: Path, when: float | None = None) -> None:
        """See to it that `run` looks at the path in time. A timer that is too early is left: it looks again."""
        due = when if when is not None else self._due(path)
        if due is None or (path.timer is not None and path.timer <= due):
            return
        path.timer = due
        heapq.heappush(self._timers, (due, next(self._order), path))

    def _act(self, path: Path, now: float, flows: Flows) -> list[Ask | Silent]:
        if not self._still_used(path, flows):
            path.check = path.measure = path.recheck = None
            path.dense = 0
            return []
        check = path.check
        if check is not None and check.sent >= PROBES:
            return [self._fail(path, now, flows)]
        if check is None and path.silent_since is None and path.measure is not None and path.measure <= now:
            return self._measure(path, now)
        if check is None:
            next_check = self._next_check(path) if path.silent_since is None else path.recheck
            if next_check is None or next_check > now:
                return []
            self._forget_probes(path)
            check = path.check = Check(now, self._patience(path, now))
        check.sent += 1
        check.again = now + SPACING
        return [self._ask(path, now)]

    def _still_used(self, path: Path, flows: Flows) -> bool:
        for owed in [owed for owed in path.owing if not flows.is_at(owed[0], path.key)]:
            del path.owing[owed]
        if not flows.is_at(path.flow_id, path.key):
            other = flows.any_at(path.key)
            if other is None:
                return False
            path.flow_id = other
        return True

    def _ask(self, path: Path, now: float) -> Ask:
        number = next(self._numbers)
        self._asked[number] = path
        path.probes[number] = now
        self.counters["probes_sent"] += 1
        return Ask(path.key, path.flow_id, number)

    def _measure(self, path: Path, now: float) -> list[Ask | Silent]:
        path.measure = None
        if path.used + MEASURE_FIRST <= now:
            return []
        self._forget_probes(path)
        path.measured_vainly += 1
        if path.answers or path.measured_vainly < MEASURE_VAINLY:
            path.measure = now + MEASURE_EVERY
        return [self._ask(path, now)]

    def _forget_probes(self, path: Path) -> None:
        for number in path.probes:
            del self._asked[number]
        path.probes.clear()

    def _fail(self, path: Path, now: float, flows: Flows) -> Silent:
        first = path.silent_since is None
        assert path.check is not None
        since = path.heard if path.heard is not None else path.check.started
        path.check = None
        if first:
            path.silent_since = since
            path.rechecks = 0
            self.counters["paths_silent"] += 1
        path.recheck = None
        if path.rechecks < RECHECKS:
            path.recheck = now + min(RECHECK_FIRST * 2**path.rechecks, RECHECK_LONGEST)
            path.rechecks += 1
        if path.silent_since is not None:
            since = path.silent_since
        came = flows.used_since(path.key)
        # What the path did before is no flow's silence.
        return Silent(path.key, since if came is None else max(since, came))
