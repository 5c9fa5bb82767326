"""Counts and a histogram of latencies, and the text in which Prometheus reads them."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping

BOUNDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)


class Histogram:
    """How many took how long; a few hundred nanoseconds for each."""

    def __init__(self) -> None:
        self.counts = [0] * (len(BOUNDS) + 1)
        self.total = 0.0

    def add(self, seconds: float) -> None:
        self.counts[bisect_left(BOUNDS, seconds)] += 1
        self.total += seconds


class Page:
    """The text, family by family."""

    def __init__(self) -> None:
        self._lines: list[str] = []

    def family(
        self, name: str, kind: str, about: str, rows: Iterable[tuple[Mapping[str, object], float | None]]
    ) -> None:
        """One metric with its rows of labels and value; rows without a value are left out."""
        self._lines += [f"# HELP {name} {about}", f"# TYPE {name} {kind}"]
        self._lines += [f"{name}{_labels(labels)} {_number(value)}" for labels, value in rows if value is not None]

    def histogram(self, name: str, about: str, rows: Iterable[tuple[Mapping[str, object], Histogram]]) -> None:
        self._lines += [f"# HELP {name} {about}", f"# TYPE {name} histogram"]
        for labels, histogram in rows:
            so_far = 0
            for bound, count in zip((*BOUNDS, "+Inf"), histogram.counts, strict=True):
                so_far += count
                self._lines.append(f"{name}_bucket{_labels({**labels, 'le': bound})} {so_far}")
            self._lines.append(f"{name}_sum{_labels(labels)} {_number(histogram.total)}")
            self._lines.append(f"{name}_count{_labels(labels)} {so_far}")

    def text(self) -> bytes:
        return ("\n".join(self._lines) + "\n").encode()


def _labels(labels: Mapping[str, object]) -> str:
    return "{" + ",".join(f'{name}="{_quoted(str(value))}"' for name, value in labels.items()) + "}" if labels else ""


def _quoted(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _number(value: float) -> str:
    return repr(round(value, 9)) if isinstance(value, float) else str(value)
