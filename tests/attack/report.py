"""The findings and the counts of an attack."""

import re
import threading
from collections import Counter
from dataclasses import dataclass, field

_SHOWN = 30
_SHOWN_OF_A_KIND = 1
_SHOWN_CHARACTERS = 700


@dataclass(frozen=True, slots=True)
class Violation:
    """Something that must not happen.

    Attributes:
        part: The part of the attack, such as ``"json"``.
        seed: The seed of the run.
        index: The number of the input; with the seed it makes the same input again. ``None``
            where it is not one input's.
        problem: The rule that was broken, and what was seen.
        sent: The input, shortened.
    """

    part: str
    seed: int
    index: int | None
    problem: str
    sent: str = ""

    @property
    def kind(self) -> str:
        """The rule, without what was seen."""
        rule = self.problem.partition("; the answer")[0]
        return re.sub(r"[0-9]+", "N", re.sub(r": [A-Z]+ /\S+", "", rule))

    def __str__(self) -> str:
        text = f"{self.part}: {self.problem}"
        if self.index is None:
            return f"{text}\n    seed: {self.seed}"
        again = f"python -m tests.attack {self.part} --seed {self.seed} --first {self.index}"
        return f"{text}\n    again: {again} --inputs 1\n    sent: {self.sent}"


@dataclass(slots=True)
class Report:
    """The counts and the violations of a run; threads may share it.

    Attributes:
        counts: How many inputs ended how: keys are the part, the route and the status.
        violations: What must not have happened.
        figures: Lines to print: memory, latencies, what was lost.
    """

    counts: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    violations: list[Violation] = field(default_factory=list)
    figures: list[str] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def count(self, part: str, route: str, status: str) -> None:
        """Count an input by how it ended."""
        with self._lock:
            self.counts[part, route, status] += 1

    def violate(self, violation: Violation) -> None:
        """Note a violation."""
        with self._lock:
            self.violations.append(violation)

    @property
    def inputs(self) -> int:
        """The number of inputs so far."""
        return self.counts.total()

    def check(self) -> None:
        """Fail where there was a violation.

        Raises:
            AssertionError: There was one; the message has the first of them with their seeds.
        """
        assert not self.violations, self._violations_text()

    def text(self) -> str:
        """The whole report."""
        routes = sorted({(part, route) for part, route, _ in self.counts})
        statuses = sorted({status for *_, status in self.counts})
        width = max((len(route) for _, route in routes), default=0) + 10
        rows = [f"{'route':{width}}" + "".join(f"{status:>12}" for status in statuses)]
        for part, route in routes:
            cells = "".join(f"{self.counts[part, route, status] or '':>12}" for status in statuses)
            rows.append(f"{f'{part} {route}':{width}}" + cells)
        total: Counter[str] = Counter()
        for (*_, status), number in self.counts.items():
            total[status] += number
        rows.append(f"{'all':{width}}" + "".join(f"{total[status]:>12}" for status in statuses))
        return "\n".join([*rows, "", *self.figures, "", self._violations_text()])

    def _violations_text(self) -> str:
        if not self.violations:
            return "no rule was broken"
        kinds: dict[tuple[str, str], list[Violation]] = {}
        for violation in self.violations:
            kinds.setdefault((violation.part, violation.kind), []).append(violation)
        lines = [f"{len(self.violations)} times a rule was broken:"]
        for same in sorted(kinds.values(), key=len, reverse=True)[:_SHOWN]:
            lines += [
                f"- {len(same)} times, such as",
                *(str(each)[:_SHOWN_CHARACTERS] for each in same[:_SHOWN_OF_A_KIND]),
            ]
        return "\n".join(lines)
