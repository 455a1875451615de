"""One flush, decided: from what the line holds and what was seen in the folder to what is written, and what waits.

A bot is one unit: while its deletions are held, nothing of it is flushed; where another identity replaces it, a
snapshot comes first and one flush carries everything.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

from authsync.core import clearing
from authsync.core.clearing import Action, Child, Creds, Decision, Removal
from authsync.core.identity import Identity, just_paired, read_identity, replaces_paired
from authsync.core.manifest import Delta, Entry, Manifest, ancestors, bot_of, folder_of, is_creds
from authsync.core.names import CREDS
from authsync.core.reconcile import SessionState
from authsync.core.retention import longer_kept
from authsync.core.torn import StoredForm, Verdict, judge

LOOK_AGAIN_S = 0.1
"""A torn or moving file is read again after so long."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Version:
    """The bytes of one file, read while its stat stood still."""

    content: bytes = field(repr=False)
    entry: Entry
    still_s: float
    """For how long the file has been as it is."""
    stored: StoredForm
    """What the line holds under this path."""


class Absence(Enum):
    """A path that has no version to flush."""

    MISSING = "missing"
    MOVING = "moving"
    """It changed while it was read."""
    UNSYNCED = "unsynced"
    """A symlink, socket or device, unreadable, or too large; whoever read it says so. The stored one stays."""


class NoteKind(Enum):
    """What a flush has to tell; the values are event names of ``messages.py``."""

    TORN = "file_torn"
    PAIRED = "bot_paired"
    IDENTITY = "identity_replaced"
    CLEARED = "bot_cleared"
    MASS_DELETION = "mass_deletion_followed"
    WIPE_KEPT = "wipe_not_followed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """One thing to tell, about a path or a bot (``""`` is the root)."""

    kind: NoteKind
    about: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Before:
    """What is known when a flush is planned."""

    line: Manifest
    """What is stored."""
    identities: Mapping[str, Identity]
    """Of the stored bots."""
    missing_since: Mapping[str, float]
    """Stored paths that earlier plans knew to be missing, and since when."""
    cleared: frozenset[str]
    """Bots that were cleared since the start: what is left of them is not stored until they have a ``creds.json``."""
    child: Child
    watching: bool
    """Whether this is ``watch``, which does not know the bot's process."""
    signalled_at: float | None = None
    """When somebody first signalled the bot, where that is known."""


@dataclass(slots=True, kw_only=True)
class FlushPlan:
    """What to write, and what waits. Built by ``plan_flush``, then only read."""

    write: dict[str, Version] = field(default_factory=dict)
    remove: set[str] = field(default_factory=set)
    snapshot: str | None = None
    """The reason of a snapshot to take first."""
    state: SessionState | None = None
    """What the session becomes; None leaves it."""
    identities: dict[str, Identity] = field(default_factory=dict)
    """Of the bots whose ``creds.json`` is written."""
    look_again: dict[str, float] = field(default_factory=dict)
    """Path -> when to look at it again."""
    missing: dict[str, float] = field(default_factory=dict)
    """Stored paths that are missing, and since when, for the next plan."""
    cleared: frozenset[str] = frozenset()
    """Bots that are cleared when this plan is done."""
    rescan: bool = False
    """The whole folder has to be compared soon."""
    notes: list[Note] = field(default_factory=list)

    @property
    def delta(self) -> Delta:
        """What the line becomes."""
        return Delta(
            changed={path: version.entry for path, version in self.write.items()}, removed=frozenset(self.remove)
        )

    def note(self, kind: NoteKind, about: str) -> None:
        """Tell something, once."""
        note = Note(kind=kind, about=about)
        if note not in self.notes:
            self.notes.append(note)

    def want_snapshot(self, reason: str) -> None:
        """Take a snapshot first; of several reasons the one that is kept longest counts."""
        self.snapshot = reason if self.snapshot is None else longer_kept(self.snapshot, reason)

    def hold_back(self, bot: str | None, bots: frozenset[str], *, until: float | None = None) -> None:
        """Write nothing of this bot now; look at it again at ``until``."""
        for path in [path for path in self.write if bot_of(path, bots) == bot]:
            del self.write[path]
            if until is not None:
                self.look_again[path] = until


def plan_flush(
    before: Before, seen: Mapping[str, Version | Absence], *, twins: frozenset[str] = frozenset(), now: float
) -> FlushPlan:
    """Plan one flush of what was ``seen``.

    Args:
        before: what is known.
        seen: what the folder showed at each path that was looked at.
        twins: ``creds.json`` paths that are missing while a ``.tmp`` or ``.bak`` lies beside them: being rewritten.
        now: seconds of the monotonic clock, as in ``before.missing_since``.
    """
    plan = FlushPlan(cleared=before.cleared)
    _sort(plan, before, seen, twins, now=now)
    _leave_remains(plan, before.line)
    displaced = _displaced(plan, before.line)
    for gone in frozenset().union(*displaced.values()):
        plan.missing.pop(gone, None)
    plan.identities = _identities_in(plan)
    _follow_removals(plan, before, twins, now=now)
    for path in displaced.keys() & plan.write.keys():  # what is held back makes no room yet
        plan.remove |= displaced[path]
        if any(is_creds(gone) for gone in displaced[path]):
            plan.want_snapshot("cleared")
            plan.note(NoteKind.MASS_DELETION, path)
    for bot, identity in plan.identities.items():
        if replaces_paired(before.identities.get(bot), identity):
            plan.want_snapshot("identity")
            plan.note(NoteKind.IDENTITY, bot)
        elif just_paired(before.identities.get(bot), identity):
            plan.note(NoteKind.PAIRED, bot)
    plan.state = _state_after(plan, before.line)
    return plan


def _sort(
    plan: FlushPlan,
    before: Before,
    seen: Mapping[str, Version | Absence],
    twins: frozenset[str],
    *,
    now: float,
) -> None:
    """What was seen, into what may be written, what is missing and what is looked at again."""
    for path, since in before.missing_since.items():
        if path in before.line and path not in seen:
            plan.missing[path] = since
    for path, what in seen.items():
        if isinstance(what, Version):
            _weigh(plan, before, path, what, now=now)
        elif what is Absence.MOVING or path in twins:
            plan.look_again[path] = now + LOOK_AGAIN_S
        elif what is Absence.MISSING and path in before.line:
            plan.missing[path] = before.missing_since.get(path, now)


def _weigh(plan: FlushPlan, before: Before, path: str, version: Version, *, now: float) -> None:
    """Write one file if it is whole and differs from what is stored."""
    if before.line.get(path) == version.entry:
        return
    match judge(path, version.content, stored=version.stored, still_s=version.still_s):
        case Verdict.WHOLE:
            plan.write[path] = version
        case Verdict.UNSETTLED if before.child is Child.ENDED:
            plan.write[path] = version  # its writer ended in peace: nobody will finish it, so this is the file
        case verdict:
            plan.look_again[path] = now + LOOK_AGAIN_S
            if verdict is Verdict.TORN:
                plan.note(NoteKind.TORN, path)


def _leave_remains(plan: FlushPlan, line: Manifest) -> None:
    """Write nothing of what is left of a cleared bot, until its ``creds.json`` is there again."""
    back = {folder_of(path) for path in plan.write if is_creds(path)} & plan.cleared
    if back:
        plan.cleared -= back
        plan.rescan = True
    bots = plan.cleared | line.bots | {folder_of(path) for path in plan.write if is_creds(path)}
    for path in [path for path in plan.write if bot_of(path, bots) in plan.cleared]:
        del plan.write[path]


def _displaced(plan: FlushPlan, line: Manifest) -> dict[str, frozenset[str]]:
    """Path to write -> the rows that cannot stay beside it: a folder took a file's place, or a file a folder's."""
    found = {}
    for path in [path for path in plan.write if path not in line]:
        rows = frozenset(folder for folder in ancestors(path) if folder in line)
        if line.is_folder(path):
            rows |= line.below(path)
        if rows:
            found[path] = rows
    return found


def _identities_in(plan: FlushPlan) -> dict[str, Identity]:
    return {
        folder_of(path): identity
        for path, version in plan.write.items()
        if is_creds(path) and (identity := read_identity(version.content)) is not None
    }


def _follow_removals(plan: FlushPlan, before: Before, twins: frozenset[str], *, now: float) -> None:
    """Decide on the missing files, bot by bot."""
    by_bot: dict[str | None, dict[str, float]] = {}
    bots = before.line.bots
    all_bots = bots | {folder_of(path) for path in plan.write if is_creds(path)}
    for path, since in plan.missing.items():
        by_bot.setdefault(bot_of(path, bots), {})[path] = since
    for bot, missing in by_bot.items():
        creds_path = f"{bot}/{CREDS}" if bot else CREDS
        if creds_path in twins and len(missing) * clearing.WIPE_SHARE > before.line.count_of(bot):
            # So much is gone that the twin is a left-over, not a writer at work.
            missing[creds_path] = plan.missing[creds_path] = before.missing_since.get(creds_path, now)
            plan.look_again.pop(creds_path, None)
        removal = Removal(
            missing=missing,
            stored_count=before.line.count_of(bot),
            creds=_creds(bot, creds_path, plan, before),
            creds_gone_since=missing.get(creds_path),
        )
        decision = clearing.decide(
            removal, child=before.child, signalled_at=before.signalled_at, watching=before.watching, now=now
        )
        _follow(plan, before.line, all_bots, bot, removal, decision=decision)
    plan.missing = {path: since for path, since in plan.missing.items() if path not in plan.remove}
    plan.identities = _identities_in(plan)


def _follow(
    plan: FlushPlan, line: Manifest, bots: frozenset[str], bot: str | None, removal: Removal, *, decision: Decision
) -> None:
    if decision.look_at is not None:
        plan.look_again.update(dict.fromkeys(removal.missing.keys() - decision.paths, decision.look_at))
    if decision.snapshot:
        plan.want_snapshot("cleared")
    # While the same credentials are there the bot works on: only its deletions wait.
    is_unit = removal.creds in {Creds.GONE, Creds.NEW, Creds.UNCLEAR}
    match decision.action:
        case Action.DELETE | Action.REPLACE:
            plan.remove |= decision.paths
            if decision.snapshot:
                plan.note(NoteKind.MASS_DELETION, bot or "")
        case Action.HOLD if is_unit:
            plan.hold_back(bot, bots, until=decision.look_at)
        case Action.KEEP:
            plan.note(NoteKind.WIPE_KEPT, bot or "")
            if is_unit:
                plan.hold_back(bot, bots)
        case Action.CLEAR if bot is not None:
            plan.hold_back(bot, bots)
            plan.remove |= line.files_of(bot)
            plan.cleared |= {bot}
            plan.note(NoteKind.CLEARED, bot)


def _creds(bot: str | None, path: str, plan: FlushPlan, before: Before) -> Creds:
    if bot is None:
        return Creds.NONE
    if path in plan.missing:
        return Creds.GONE
    if path in plan.look_again:
        return Creds.UNCLEAR
    now, stored = plan.identities.get(bot), before.identities.get(bot)
    return Creds.NEW if now is not None and stored is not None and now.key_id != stored.key_id else Creds.SAME


def _state_after(plan: FlushPlan, line: Manifest) -> SessionState | None:
    bots = {folder_of(path) for path in plan.write if is_creds(path)}
    if bots:
        return SessionState.LIVE
    left = line.bots - {folder_of(path) for path in plan.remove if is_creds(path)}
    return SessionState.CLEARED if line.bots and not left else None
