"""What was measured, and the table of it: medians with their extremes, ratios of pairs, and the targets met."""

from __future__ import annotations

import statistics
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """Repeated measurements of one thing."""

    median: float
    low: float
    high: float
    count: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """The spread of at least one value."""
        return cls(median=statistics.median(values), low=min(values), high=max(values), count=len(values))

    def __str__(self) -> str:
        if self.count == 1:
            return short(self.median)
        return f"{short(self.median)} ({short(self.low)}-{short(self.high)})"


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One line of the table. ``target`` is the most that ``limited`` may be: the median of ``ours`` or of ``ratio``."""

    suite: str
    what: str
    unit: str
    ours: Spread | None = None
    against: str = ""
    baseline: Spread | None = None
    ratio: Spread | None = None
    target: float | None = None
    limited: str = field(default="ours")

    @property
    def met(self) -> bool | None:
        """Whether the target was met; None where there is none."""
        spread = self.ours if self.limited == "ours" else self.ratio
        return None if self.target is None or spread is None else spread.median <= self.target

    def as_json(self) -> dict[str, Any]:
        """Stable names for programs."""
        return {
            "suite": self.suite,
            "what": self.what,
            "unit": self.unit,
            "ours": _numbers(self.ours),
            "against": self.against,
            "baseline": _numbers(self.baseline),
            "ratio": _numbers(self.ratio),
            "target": self.target,
            "limited": self.limited if self.target is not None else None,
            "met": self.met,
        }


def paired(
    suite: str,
    what: str,
    unit: str,
    pairs: Sequence[tuple[float, float]],
    *,
    against: str,
    target: float | None = None,
    limited: str = "ratio",
) -> Row:
    """A row out of (ours, baseline) pairs; the ratio is taken of each pair: a slow minute then counts on both sides."""
    return Row(
        suite=suite,
        what=what,
        unit=unit,
        ours=Spread.of([ours for ours, _ in pairs]),
        against=against,
        baseline=Spread.of([baseline for _, baseline in pairs]),
        ratio=Spread.of([ours / baseline for ours, baseline in pairs if baseline])
        if any(b for _, b in pairs)
        else None,
        target=target,
        limited=limited,
    )


def interleaved(
    ours: Callable[[], float], baseline: Callable[[], float], *, pairs: int, warm_up: int = 1
) -> list[tuple[float, float]]:
    """Measure both in turns, each first in every other pair; the warm-up pairs are not counted."""
    measured = []
    for number in range(warm_up + pairs):
        if number % 2:
            second, first = baseline(), ours()
        else:
            first, second = ours(), baseline()
        if number >= warm_up:
            measured.append((first, second))
    return measured


def table(rows: Sequence[Row]) -> str:
    """The rows for people."""
    cells = [("measured (median, min-max)", "unit", "authsync", "baseline", "", "ratio", "target", "met")]
    for row in rows:
        target = "" if row.target is None else f"<= {short(row.target)}{' x' if row.limited == 'ratio' else ''}"
        met = {None: "", True: "yes", False: "NO"}[row.met]
        sides = (str(row.ours or ""), str(row.baseline or ""), row.against, f"{row.ratio} x" if row.ratio else "")
        cells.append((f"{row.suite}: {row.what}", row.unit, *sides, target, met))
    widths = [max(len(line[column]) for line in cells) for column in range(len(cells[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in cells]
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:]])


def short(value: float) -> str:
    """Three digits of a number are more than a noisy machine gives."""
    if not value or abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.{1 if abs(value) >= 10 else 2 if abs(value) >= 0.1 else 4}f}"


def _numbers(spread: Spread | None) -> dict[str, float] | None:
    if spread is None:
        return None
    return {"median": spread.median, "min": spread.low, "max": spread.high, "count": spread.count}
