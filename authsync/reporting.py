"""What a run tells of its flushes: one line each in the first minute, a summary each interval later, warnings once."""

from __future__ import annotations

from authsync import log
from authsync.core.flushplan import NoteKind
from authsync.line import Report

VERBOSE_FOR_S = 60.0
TORN_WARNING_S = 5.0
"""A file that is torn for a moment is being written; one that stays so is worth a line."""
MAX_TOLD = 10_000
"""Distinct warnings that are remembered, so that a bot that makes odd files for ever costs no memory."""


class Reporter:
    """Turns reports into log lines. Used by the main thread."""

    def __init__(self, now: float) -> None:
        self._since = now
        self._told: set[tuple[str, str]] = set()
        self.torn: dict[str, float] = {}
        """Paths that are torn, and since when: their last versions are not stored."""
        self._summary_since = now
        self._flushes = self._files = self._bytes = 0
        self._slowest_ms = 0.0

    def report(self, report: Report, now: float) -> None:
        """Tell of one flush."""
        for note in report.notes:
            if note.kind is NoteKind.TORN:
                continue  # below, when it lasts
            if note.kind is NoteKind.WIPE_KEPT:
                self.warn_once(note.kind.value, note.about, bot=note.about or ".")
            else:
                log.tell(note.kind.value, bot=note.about or ".", snapshot=report.snapshot)
        self._warn_of_torn(report, now)
        for path, reason in report.unsynced.items():
            self.warn_once("path_not_synced", path, path=path, reason=reason)
        for path, reason in report.unsupported.items():
            self.warn_once("unsupported_store", reason, path=path, reason=reason)
        if report.put_back:
            log.get().warning("store_put_back", revision=report.revision)
        if report.changed:
            self._count(report)
            verbose = now - self._since < VERBOSE_FOR_S
            (log.get().info if verbose else log.get().debug)(
                "flush_done",
                files=report.files,
                removed=report.removed,
                bytes=report.bytes,
                revision=report.revision,
                took_ms=report.took_ms,
            )

    def summarise(self, now: float) -> None:
        """Tell of the flushes since the last summary, if there were any."""
        if not self._flushes or now - self._since < VERBOSE_FOR_S:
            return
        log.get().info(
            "flush_summary",
            flushes=self._flushes,
            files=self._files,
            bytes=self._bytes,
            slowest_ms=self._slowest_ms,
            period_s=round(now - self._summary_since),
        )
        self._flushes = self._files = self._bytes = 0
        self._slowest_ms, self._summary_since = 0.0, now

    def warn_once(self, event: str, about: str, **fields: object) -> None:
        """Warn, unless this was said before."""
        if (event, about) not in self._told and len(self._told) < MAX_TOLD:
            self._told.add((event, about))
            log.get().warning(event, **fields)

    def _count(self, report: Report) -> None:
        self._flushes += 1
        self._files += report.files
        self._bytes += report.bytes
        self._slowest_ms = max(self._slowest_ms, report.took_ms)

    def _warn_of_torn(self, report: Report, now: float) -> None:
        torn = {note.about for note in report.notes if note.kind is NoteKind.TORN}
        torn |= self.torn.keys() - report.looked
        self.torn = {path: self.torn.get(path, now) for path in torn}
        for path, since in self.torn.items():
            if now - since >= TORN_WARNING_S:
                self.warn_once("file_torn", f"{path} {since}", path=path, for_s=round(now - since))
