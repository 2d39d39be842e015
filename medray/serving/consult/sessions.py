"""The consultations that are open, for all gateways together, in memory.

In: messages of patients, the model and clinicians. Out: consultations as they stand, or why not.
One replica holds them all, as many as `max_sessions` and each until nobody has written for
`idle_s`: a replica that is started anew knows none. Texts of patients are nowhere else than here
and, encrypted, in the audit log.

Every method is a coroutine that waits for nothing: Serve runs plain methods in several threads, and
what happens to a session must happen at once.
"""

import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from pydantic import Field, model_validator

from medray.common.config import Config
from medray.serving.schema.consult import Consultation, ConsultMessage, Status, Summary

Fault = Literal["unknown", "busy", "ended", "long", "crowded", "attended", "not_attending"]


class ConsultConfig(Config):
    """How consultations are held, and how many."""

    max_questions: int = Field(default=6, ge=1, le=50)
    """The model judges after so many. Source: not given in [MedFM table 3]; a patient who types
    answers a handful."""
    min_questions: int = Field(default=2, ge=0, le=3)
    """Before so many have been answered the service asks what any doctor does, where the model asks
    nothing. Source: not given; duration and what goes with it, then past illness and allergies."""
    question_tokens: int = Field(default=96, ge=8)
    """A question's length at most."""
    max_sessions: int = Field(default=500, ge=1)
    max_messages: int = Field(default=100, ge=4)
    """Of one consultation."""
    idle_s: float = Field(default=1800.0, gt=0)
    """A consultation in which nobody has written for so long is forgotten."""
    turn_s: float = Field(default=300.0, gt=0)
    """A turn that has not ended by then, since its gateway died, holds the next up no longer."""

    @model_validator(mode="after")
    def _check(self) -> "ConsultConfig":
        if self.min_questions > self.max_questions:
            raise ValueError(
                f"min_questions {self.min_questions} is more than max_questions "
                f"{self.max_questions}; lower it"
            )
        return self


class Pending(NamedTuple):
    """A turn in progress: the patient's message waits for the model's."""

    request: str
    message: ConsultMessage | None
    until: float


@dataclass
class Session:
    """One consultation, whose it is, who attends it, what is being answered."""

    consultation: Consultation
    owner: str
    touched: float
    clinician: str = ""
    pending: Pending | None = None


class Consultations:
    """All open consultations, the one that was idle longest first."""

    def __init__(self, config: ConsultConfig, clock: Callable[[], float] = time.monotonic) -> None:
        self._config, self._clock = config, clock
        self._sessions: OrderedDict[str, Session] = OrderedDict()

    async def open(self, consultation: Consultation, owner: str) -> Fault | None:
        """Adds one; where there is no room, in the place of the oldest that was judged."""
        self._forget_idle()
        if len(self._sessions) >= self._config.max_sessions:
            judged = (k for k, s in self._sessions.items() if s.consultation.status == "judged")
            if (oldest := next(judged, None)) is None:
                return "crowded"
            del self._sessions[oldest]
        self._sessions[consultation.id] = Session(consultation, owner, self._clock())
        return None

    async def find(self, identifier: str, owner: str | None) -> Consultation | Fault:
        """One consultation; `owner` None finds anybody's."""
        session = self._find(identifier, owner)
        return "unknown" if session is None else self._told(session)

    async def summaries(self, owner: str | None) -> list[Summary]:
        """Those of one owner, or all that are open; emergencies first, then the oldest."""
        self._forget_idle()
        told = [
            Summary(**self._told(session).model_dump(include=set(Summary.model_fields)))
            for session in self._sessions.values()
            if owner in (None, session.owner)
            and not (owner is None and session.consultation.status == "judged")
        ]
        return sorted(told, key=lambda one: (one.status != "urgent", one.created))

    async def remove(self, identifier: str, owner: str) -> Fault | None:
        """Forgets one at its owner's wish."""
        if self._find(identifier, owner) is None:
            return "unknown"
        del self._sessions[identifier]
        return None

    async def begin(
        self, identifier: str, owner: str, request: str, message: ConsultMessage | None
    ) -> Consultation | Fault:
        """A patient's turn begins: the consultation with `message`, which stays pending until
        `finish` or `abandon`. A clinician who has taken over needs no answer of ours: the message
        is added at once."""
        session = self._find(identifier, owner)
        if session is None:
            return "unknown"
        if fault := self._closed(session):
            return fault
        if session.consultation.status == "clinician":
            if message is None:
                return "attended"
            return self._add(session, [message])
        if session.consultation.status == "judged":
            return "ended"
        now = self._clock()
        if session.pending is not None and now < session.pending.until:
            return "busy"
        session.pending = Pending(request, message, now + self._config.turn_s)
        told = self._told(session)
        return told.model_copy(update={"messages": told.messages + ([message] if message else [])})

    async def finish(
        self, identifier: str, request: str, replies: Sequence[ConsultMessage], status: Status
    ) -> Consultation | Fault:
        """The turn's end. Where somebody came between (a clinician, an emergency) the patient's
        message stands already, and `replies` are dropped."""
        session = self._find(identifier, None)
        if session is None:
            return "unknown"
        if session.pending is None or session.pending.request != request:
            return self._told(session)
        self._flush(session)
        session.consultation = session.consultation.model_copy(update={"status": status})
        return self._add(session, replies)

    async def abandon(self, identifier: str, request: str) -> None:
        """The turn failed: its message is not in the consultation, and may be sent again. One that
        was to open a consultation leaves none, for nobody was told of it."""
        session = self._sessions.get(identifier)
        if session is not None and session.pending and session.pending.request == request:
            session.pending = None
            if not session.consultation.messages:
                del self._sessions[identifier]

    async def alarm(
        self, identifier: str, owner: str, sign: str, messages: Sequence[ConsultMessage]
    ) -> Consultation | Fault:
        """A sign of an emergency and what was said to it, whatever else goes on."""
        session = self._find(identifier, owner)
        if session is None:
            return "unknown"
        self._flush(session)
        attended = session.consultation.status == "clinician"
        status: Status = "clinician" if attended else "urgent"
        change = {"status": status, "red_flag": sign}
        session.consultation = session.consultation.model_copy(update=change)
        return self._add(session, messages)

    async def take_over(
        self, identifier: str, clinician: str, notice: ConsultMessage
    ) -> Consultation | Fault:
        """A clinician speaks from now on; another who did so does no longer. A turn of the model in
        progress is dropped."""
        session = self._find(identifier, None)
        if session is None:
            return "unknown"
        self._flush(session)
        session.clinician = clinician
        session.consultation = session.consultation.model_copy(update={"status": "clinician"})
        return self._add(session, [notice])

    async def reply(
        self, identifier: str, clinician: str, message: ConsultMessage
    ) -> Consultation | Fault:
        """The clinician writes to the patient."""
        session = self._attended(identifier, clinician)
        if not isinstance(session, Session):
            return session
        return self._closed(session) or self._add(session, [message])

    async def hand_back(
        self, identifier: str, clinician: str, notice: ConsultMessage
    ) -> Consultation | Fault:
        """The model goes on; what was an emergency is none any more."""
        session = self._attended(identifier, clinician)
        if not isinstance(session, Session):
            return session
        session.clinician = ""
        change = {"status": "asking", "red_flag": ""}
        session.consultation = session.consultation.model_copy(update=change)
        return self._add(session, [notice])

    async def status(self) -> dict[str, int]:
        """What /healthz shows."""
        self._forget_idle()
        return {"open": len(self._sessions)}

    def _find(self, identifier: str, owner: str | None) -> Session | None:
        self._forget_idle()
        session = self._sessions.get(identifier)
        return session if session is not None and owner in (None, session.owner) else None

    def _attended(self, identifier: str, clinician: str) -> Session | Fault:
        """A consultation that this clinician has taken over."""
        session = self._find(identifier, None)
        if session is None:
            return "unknown"
        if session.consultation.status != "clinician" or session.clinician != clinician:
            return "not_attending"
        return session

    def _closed(self, session: Session) -> Fault | None:
        full = len(session.consultation.messages) + 2 > self._config.max_messages
        return "long" if full else None

    def _flush(self, session: Session) -> None:
        """Puts a pending message into the consultation."""
        pending, session.pending = session.pending, None
        if pending is not None and pending.message is not None:
            self._add(session, [pending.message])

    def _add(self, session: Session, messages: Sequence[ConsultMessage]) -> Consultation:
        there = session.consultation.messages
        numbered = [
            message.model_copy(update={"number": number})
            for number, message in enumerate(messages, len(there))
        ]
        asked = sum(message.kind == "question" for message in messages)
        change = {
            "messages": there + numbered,
            "num_messages": len(there) + len(numbered),
            "num_questions": session.consultation.num_questions + asked,
        }
        session.consultation = session.consultation.model_copy(update=change)
        session.touched = self._clock()
        self._sessions.move_to_end(session.consultation.id)
        return self._told(session)

    def _told(self, session: Session) -> Consultation:
        idle_s = round(self._clock() - session.touched, 1)
        return session.consultation.model_copy(update={"idle_s": idle_s})

    def _forget_idle(self) -> None:
        oldest = self._clock() - self._config.idle_s
        while self._sessions and next(iter(self._sessions.values())).touched < oldest:
            self._sessions.popitem(last=False)
