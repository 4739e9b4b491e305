"""What waits for the end of a transaction: events held back, and those who take part."""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextvars import Context
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias
from weakref import ReferenceType, WeakKeyDictionary, WeakSet

from madcrow_events._transactions._participants import Participant
from madcrow_events._transactions._refusing import Refuse
from madcrow_events._transactions._synchronous import Watched
from madcrow_events.dispatcher import EventDispatcher
from madcrow_events.emissions._holding import DeferralFrame, Raised

if TYPE_CHECKING:
    from sqlalchemy import Connection

__all__ = ["Block", "Watcher", "known_watcher", "make_known"]

_Taken: TypeAlias = "dict[DeferralFrame | Participant, int]"
"""How much each holder and participant had at some moment."""


class Block(Protocol):
    """A `with` that holds events back."""

    kept: int
    """How many of the emissions that are held back are older than this `with`."""


class Watcher(ABC):
    """Holds events back for the transactions of one session or connection, and writes for them."""

    def __init__(self) -> None:
        self.open: WeakSet[Block] = WeakSet()
        """Each `with` that has begun and not ended."""
        self.writes_at_once = False
        """Whether the COMMIT comes next, so that rows that are added now are written now."""
        self._holders: list[DeferralFrame] = []
        """One for each dispatcher and its siblings, in the order of their first use.

        A holder is for several transactions if a `with` is around these.
        """
        self._participants: dict[Participant, int] = {}
        """How much each participant had when it wrote, in the order in which they joined."""
        self._is_writing = False
        self._marks: dict[object, _Taken] = {}
        """For each savepoint, how much had been taken when it began."""
        self._is_undecided = False
        """Whether a transaction has begun, and neither its commit nor its rollback was noticed."""

    @property
    def is_in_use(self) -> bool:
        """Whether there is something that holds events back."""
        return bool(self._holders)

    @abstractmethod
    def watch(self, watched: Any) -> None:
        """See to it that the end of the present transaction is noticed."""

    @abstractmethod
    def follow(self, watched: Any, refuse: Refuse) -> None:
        """Notice each beginning, too, for a `with` whose events come without a call here.

        Args:
            watched: the session or connection.
            refuse: returns the error to raise if a session turns out to have no transactions.
        """

    def holder_for(self, dispatcher: EventDispatcher) -> DeferralFrame:
        """Return what holds back the events of a dispatcher; make it at the first call."""
        for holder in self._holders:
            if holder.is_of(dispatcher):
                return holder
        holder = DeferralFrame(dispatcher, None)
        # In an empty context, because it may go on after all that is around this `with`.
        Context().run(holder.open)
        self._holders.append(holder)
        return holder

    # Those who take part

    def join(self, watched: Any, participant: Participant) -> None:
        """Let a participant write before the COMMIT; call this each time it has taken something.

        If the commit has begun, it writes now. If this fails, the transaction is rolled back, for
        the emitter may swallow the error, and then nothing else would stop the commit.

        Args:
            watched: the session or connection, in a transaction.
            participant: it takes part until the end of this transaction.
        """
        self._participants.setdefault(participant, 0)
        if self.writes_at_once and not self._is_writing:
            try:
                self._write_all(watched)
            except BaseException:
                self._spoil(watched)
                raise

    def write(self, watched: Any) -> None:
        """Let each participant write, just before the COMMIT."""
        self.writes_at_once = True
        try:
            self._write_all(watched)
        except BaseException:
            self.writes_at_once = False
            raise

    def _write_all(self, watched: Any) -> None:
        self._is_writing = True  # so that what is taken meanwhile is left to this loop
        try:
            self._write_each(watched)
        finally:
            self._is_writing = False

    def _write_each(self, watched: Any) -> None:
        while (participant := self._unwritten()) is not None:
            taken = participant.mark()
            participant.write(self._connection_for(watched, participant))
            self._participants[participant] = taken  # last: an interrupt lets it write again

    def _unwritten(self) -> Participant | None:
        """Return a participant that has taken something since it wrote."""
        unwritten = (it for it, written in self._participants.items() if it.mark() != written)
        # Not by who joined first: each may take locks, in an order that all transactions share.
        return min(unwritten, key=lambda it: str(it.clause), default=None)

    @abstractmethod
    def _connection_for(self, watched: Any, participant: Participant) -> Connection:
        """Return the connection that a participant writes on."""

    @abstractmethod
    def _spoil(self, watched: Any) -> None:
        """Roll the transaction back, so that its commit fails."""

    def _end_participants(self, *, is_committed: bool) -> None:
        for participant in self._participants:
            participant.end(is_committed=is_committed)
        self._participants.clear()  # last, so that an interrupt lets all of them end again

    # Transactions and savepoints

    def begin(self) -> None:
        """Note that a transaction has begun."""
        self.give_up()
        self._is_undecided = True

    def give_up(self) -> None:
        """Drop what waits for a transaction that has gone without notice, by an interrupt."""
        if self._is_undecided:
            self._drop()
        if self._participants:
            self._end_participants(is_committed=not self._is_undecided)
        self._is_undecided = self.writes_at_once = self._is_writing = False

    def mark(self, savepoint: object) -> None:
        """Note how much has been taken, as a savepoint begins."""
        taken: _Taken = {it: len(it.held_back) for it in self._holders}
        taken.update((it, it.mark()) for it in self._participants)
        self._marks[savepoint] = taken

    def roll_back_to(self, savepoint: object) -> None:
        """Drop what was taken since a savepoint began."""
        taken = self._marks.pop(savepoint, {})
        for holder in self._holders:
            holder.discard(keep=taken.get(holder, 0))
        for participant in self._participants:
            participant.discard(keep := taken.get(participant, 0))
            self._participants[participant] = min(self._participants[participant], keep)

    def release(self, savepoint: object) -> None:
        """Forget a savepoint, so that what was taken in it goes the way of the transaction."""
        self._marks.pop(savepoint, None)

    def settle(self, *, is_committed: bool) -> None:
        """Let what is held back go out, or drop it, at the end of a transaction."""
        self._is_undecided = not is_committed  # until all know, should an interrupt come
        if not is_committed:
            self._drop()
        if self._participants:
            self._end_participants(is_committed=is_committed)
        self._is_undecided = self.writes_at_once = False
        self._forget()
        holders = [*self._holders]
        if is_last := not self.open:
            self._holders.clear()  # first, because a handler may use the session
        raised = Raised()
        for holder in holders:
            try:
                if is_last:
                    # From now on, what a task from one of its `with` emits goes out at once.
                    holder.end(None)
                if is_committed or is_last:
                    holder.flush()  # even if a block is around the commit
            except BaseException as error:
                if is_last:
                    holder.break_off()  # if an interrupt came before anything went out
                raised.add(error, [])
        raised.again()

    def end_idle(self) -> None:
        """End the holders that nobody may end later, so that nothing is held back for ever."""
        idle = [it for it in self._holders if not it.held_back]
        for holder in idle:
            self._holders.remove(holder)
            holder.end(None)
            holder.flush()  # what another thread has emitted at this very moment

    def _drop(self) -> None:
        self._forget()
        for holder in self._holders:
            holder.discard()

    def _forget(self) -> None:
        """Forget what the savepoints and each `with` have noted."""
        self._marks.clear()
        for block in self.open:
            block.kept = 0


# Weak on both sides, because an emission may refer to its session. The listeners keep the watcher.
_watchers: WeakKeyDictionary[Watched, ReferenceType[Watcher]] = WeakKeyDictionary()


def known_watcher(watched: Watched) -> Watcher | None:
    """Return the watcher of a session or connection, if it has one."""
    known = _watchers.get(watched)
    return known() if known is not None else None


def make_known(watched: Watched, watcher: Watcher) -> None:
    """Let `known_watcher` find a watcher."""
    _watchers[watched] = ReferenceType(watcher)
