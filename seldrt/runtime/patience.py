"""What is told of daemons from which nothing comes, that are called alike, or that do not report what is asked for."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence

from seldrt.client import forget_oldest
from seldrt.config import printable
from seldrt.connection import Connection
from seldrt.detection import AnyMessage, Status

SILENT_S = 3.0  # without any message: something is wrong
LATE_S = 3.0  # so much later than it could be, and what is told of is no longer the present
SLOWER_PER_S = 0.0005  # by which clocks may drift apart

MOST_NAMES = 100  # that are remembered of a daemon; only who means no good has more

HeardS = Mapping[tuple[str, str], float]  # by source and url: when it was heard last, on the monotonic clock


def silence(connection: Connection, seconds: float, source: str = "") -> str:
    """What to say of so long a silence; where only one ``source`` is asked for, the name may be wrong."""
    which, named = (f" of --source {source}", ": is that its name?") if source else ("", "")
    why = f": {connection.trouble}" if connection.trouble else f", though it is connected{named}"
    return f"nothing heard{which} from {connection.url} for {seconds:.0f} s{why}"


def lateness(url: str) -> str:
    """What to say of messages that come too late."""
    return f"what comes from {url} comes more than {LATE_S:.0f} s late: the link is too slow, or this computer"


class Delay:
    """How much later than the quickest one the messages of a daemon come, whatever their clock says."""

    def __init__(self) -> None:
        self._quickest_s, self._sent_s, self._came_s = math.inf, -math.inf, 0.0

    def of(self, message: AnyMessage) -> float:
        """Seconds, of a message that has just come."""
        sent_s, now_s = message.t_pub_ns / 1e9, time.monotonic()
        if sent_s < self._sent_s - SILENT_S:  # their clock was set back
            self._quickest_s = math.inf
        self._quickest_s = min(self._quickest_s + SLOWER_PER_S * (now_s - self._came_s), now_s - sent_s)
        self._sent_s, self._came_s = sent_s, now_s
        return now_s - sent_s - self._quickest_s


def namesakes(heard_s: HeardS, now_s: float) -> list[str]:
    """What to say of daemons with the same name."""
    urls: dict[str, list[str]] = {}
    for (source, url), at_s in heard_s.items():
        if now_s - at_s < SILENT_S:
            urls.setdefault(source, []).append(url)
    return [
        f"{' and '.join(sorted(each))} are both called {printable(source)}: start one with another --source"
        for source, each in sorted(urls.items())
        if len(each) > 1
    ]


def unreported(source: str, classes: Sequence[str], reported: Sequence[str]) -> str:
    """What to say of those classes that a source does not report; "" of none, or if it did not tell what it reports."""
    missing = [name for name in classes if name not in reported] if reported else []
    return printable(f"{source} reports no {', '.join(missing)}, but {', '.join(reported)}") if missing else ""


class Patience:
    """Says through ``tell`` where nothing comes from, and why, when that changes, and is over.

    Of one ``source`` and its ``classes`` only, where they are asked for. ``stand`` gets all of this that holds,
    whenever that changes: what is wrong, and the names of those of whom nothing comes, as far as they were heard.
    """

    def __init__(
        self,
        connections: Sequence[Connection],
        tell: Callable[[str], None],
        source: str = "",
        classes: Sequence[str] = (),
        stand: Callable[[list[tuple[str, list[str]]]], None] = lambda standing: None,
    ) -> None:
        self._tell, self._source, self._classes, self._stand = tell, source, classes, stand
        self._standing: list[tuple[str, list[str]]] = []
        self._silences = [_Silence(connection) for connection in connections]
        self._heard_s: dict[tuple[str, str], float] = {}
        self._alike: list[str] = []
        self._missing: dict[tuple[str, str], str] = {}  # what was said of the classes of each

    def turn(self, message: AnyMessage | None = None, url: str = "") -> None:
        """A turn of waiting ends, in which this message came from ``url``, or none."""
        now_s = time.monotonic()
        source = message.source if message else ""
        reported = message.classes if isinstance(message, Status) else ()  # what there may be, if it was said
        self._heard_s = {key: at_s for key, at_s in self._heard_s.items() if now_s - at_s < SILENT_S}
        if source:
            self._heard_s[source, url] = now_s
        for each in self._silences:
            self._tell_of(each.news(now_s, self._source))
            if message and each.url == url:
                self._tell_of(each.news_of_delay(message, now_s))
                if len(each.names) < MOST_NAMES:
                    each.names.add(source)
        before, self._alike = self._alike, namesakes(self._heard_s, now_s)
        for text in self._alike:
            self._tell_of(text if text not in before else "")
        if reported and (text := unreported(source, self._classes, reported)) != self._missing.get((source, url), ""):
            self._missing[source, url] = text
            forget_oldest(self._missing)
            self._tell_of(text)
        standing = [(each.told, sorted(each.names)) for each in self._silences if each.told]
        standing += [(text, []) for text in (*self._alike, *(each.late for each in self._silences if each.late))]
        if standing != self._standing:
            self._standing = standing
            self._stand(standing)

    def _tell_of(self, news: str) -> None:
        if news:
            self._tell(news)


class _Silence:
    """How long nothing has come through a connection, and what was said of it."""

    def __init__(self, connection: Connection) -> None:
        self._connection, self.url = connection, connection.url
        self._since_s, self._trouble = connection.heard_s, connection.trouble
        self.told = ""  # what still holds of that
        self.names: set[str] = set()  # of who was heard from there
        self._delay, self._late_since_s = Delay(), math.inf
        self.late = ""  # what was said of its messages, while that holds

    def news(self, now_s: float, source: str) -> str:
        """What is to be told now."""
        trouble = self._connection.trouble
        if trouble != self._trouble:
            self._trouble, self._since_s = trouble, now_s
        if self._connection.silent_s() < SILENT_S:
            told, self.told = self.told, ""
            return f"{self.url} is heard" if told else ""
        text = silence(self._connection, SILENT_S, source)
        if text == self.told or (self.told and now_s - self._since_s < SILENT_S):  # it may be passing
            return ""
        self.told = text
        return text

    def news_of_delay(self, message: AnyMessage, now_s: float) -> str:
        """What is to be told now; what was held up for a moment only is not."""
        if self._delay.of(message) < (LATE_S / 2 if self.late else LATE_S):
            self._late_since_s = math.inf
            late, self.late = self.late, ""
            return f"{self.url} is in time again" if late else ""
        self._late_since_s = min(self._late_since_s, now_s)
        if self.late or now_s - self._late_since_s < SILENT_S:
            return ""
        self.late = lateness(self.url)
        return self.late
