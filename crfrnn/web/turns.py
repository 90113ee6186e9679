"""Gradio's queue and what it remembers of sessions, made fair: whoever asks for much waits longer, nobody else."""

from collections import Counter, OrderedDict
from collections.abc import Callable
from typing import Any

import gradio as gr
from gradio.context import LocalContext
from gradio.queueing import Event, Queue
from gradio.server_messages import ProcessCompletedMessage
from gradio.utils import LRUCache, error_payload

from crfrnn.web.shares import visitor
from crfrnn.web.wording import language_of, say


def asking() -> str:
    """The visitor for whom a handler is at work."""
    request = LocalContext.request.get(None)
    return "" if request is None else visitor(request.client)


def take_turns(queue: Queue, functions: Any, waiting: int, sessions: int) -> None:
    """Let visitors take turns in this queue, in which so many may wait for each kind of place."""

    def dismiss(event: Event) -> None:
        language = language_of(event.request.headers.get("accept-language", ""))
        told = error_payload(gr.Error(say(language, "busy"), title=""), show_error=True)
        queue.send_message(event, ProcessCompletedMessage(output=told, success=False, title=""))
        queue.event_ids_to_events.pop(event._id, None)

    for function in functions:
        queue.create_event_queue_for_fn(function)
    for places in queue.event_queue_per_concurrency_id.values():
        places.queue = Turns(waiting, lambda event: visitor(event.request.client), dismiss)
    queue.pending_messages_per_session = Mailboxes(queue, sessions)


class Turns(list):
    """Those who wait: a visitor's second request behind the first ones of all others, and so on.

    Where more wait than `most`, the last of this order is dismissed: one of whoever has most of them waiting.
    """

    def __init__(self, most: int, owner: Callable[[Any], str], dismiss: Callable[[Any], None]):
        super().__init__()
        self.most, self.owner, self.dismiss = most, owner, dismiss

    def append(self, event: Any) -> None:
        earlier = [self.owner(other) for other in self]
        own = earlier.count(self.owner(event))
        seen: Counter[str] = Counter()
        place = len(self)
        for number, owner in enumerate(earlier):
            if seen[owner] > own:
                place = number
                break
            seen[owner] += 1
        self.insert(place, event)
        if len(self) > self.most:
            self.dismiss(self.pop())


class Mailboxes(LRUCache):
    """What is to be told to each session. Gradio forgets the oldest, though somebody waits there.

    Here that one goes which nobody has looked into for longest (whoever listens looks every ten seconds), and for which
    nothing is computed or waits.
    """

    def __init__(self, queue: Queue, most: int):
        super().__init__(most)
        self.of = queue

    def __getitem__(self, session: str) -> Any:
        messages = super().__getitem__(session)
        self.move_to_end(session)
        return messages

    def __setitem__(self, session: str, messages: Any) -> None:
        if session not in self and len(self) >= self.max_size:
            busy = {event.session_hash for event in self.of.event_ids_to_events.values()}
            gone = next((one for one in self if one not in busy), None)
            if gone is not None:
                self.pop(gone)
                self.of.pending_event_ids_session.pop(gone, None)
        OrderedDict.__setitem__(self, session, messages)
