"""Finds out who sends for the processes of this user, for whom, and what they hold."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final

from infertrace.commands.finding import NOTE, OK, PROBLEM, Finding
from infertrace.commands.gpu_check import describe_readings
from infertrace.exporting import choice, launcher
from infertrace.exporting.answer import SendError
from infertrace.exporting.log_text import one_line
from infertrace.exporting.sender_directory import NoDirectory

if TYPE_CHECKING:
    from infertrace.configuration import Settings
    from infertrace.exporting.host_sender import Place

_CHECK: Final = "sender process"
_MAX_CLIENTS: Final = 10


def check_sender(settings: Settings) -> Iterator[Finding]:
    """What a tracer would do, and each sender that runs."""
    if settings.sender_process == "none":
        yield Finding(_CHECK, NOTE, "switched off: the traced process sends itself")
        return
    if settings.agent is not None and choice.may_hand_over(settings):
        yield _examine_agent(settings.agent)
        return
    if not launcher.is_possible():
        yield Finding(_CHECK, NOTE, "not possible here: the traced process sends itself")
        return
    if not choice.may_hand_over(settings):
        yield Finding(_CHECK, OK, "one for each tracer: what is pending at its end is not held")
        return
    from infertrace.exporting import host_sender

    try:
        mine = host_sender.find_place()
        places = host_sender.find_senders()
    except NoDirectory as error:
        yield Finding(_CHECK, NOTE, f"one for each tracer, since none can be shared: {error}")
        return
    yield Finding(_CHECK, OK, f"shared by the processes of this user, in {mine.directory}")
    for place in places:
        yield _examine(place, is_mine=place == mine)


def _examine_agent(agent: str) -> Finding:
    from infertrace.exporting import host_sender

    check = "agent"
    try:
        answer = host_sender.ask_status(host_sender.find_place(agent))
    except (OSError, SendError) as error:
        return Finding(check, PROBLEM, f"{agent} cannot be used: {error}")
    if answer is None:
        return Finding(
            check, PROBLEM, f"nobody listens at {agent}: start `infertrace agent`; spans wait"
        )
    return Finding(check, OK, "; ".join((agent, *_describe(json.loads(answer)))))


def _examine(place: Place, *, is_mine: bool) -> Finding:
    from infertrace.exporting import host_sender

    check = f"{_CHECK}, {place.name}"
    try:
        answer = host_sender.ask_status(place)
    except (OSError, SendError) as error:
        return Finding(check, PROBLEM if is_mine else NOTE, f"does not answer: {error}")
    if answer is None:
        return Finding(check, NOTE, "its socket is left over: the next tracer starts another")
    return Finding(check, OK, "; ".join(_describe(json.loads(answer))))


def _describe(status: Mapping[str, Any]) -> Iterator[str]:
    age_s = time.time() - status["since"]
    yield f"version {status['version']}, process {status['pid']}, for {age_s:.0f} s"
    clients = status["clients"]
    named = [f"{client['pid']} {one_line(client['service'])}" for client in clients[:_MAX_CLIENTS]]
    if len(clients) > _MAX_CLIENTS:
        named.append("...")
    yield f"{len(clients)} clients" + (f" ({', '.join(named)})" if named else "")
    if "forward" in status:
        yield f"all spans go to {one_line(status['forward'])}"
    if "gpus" in status:  # an agent may be an older one
        yield from describe_readings(status["gpus"])
    if "spool" in status:
        spool = status["spool"]
        yield f"{spool['bytes']} of {spool['max_bytes']} bytes of its spool in use"
    for target in status["targets"]:
        yield f"{target['delivered']} spans to {one_line(target['address'])} by {target['wire']}"
    for held in status["held"]:
        why = f": {one_line(held['error'])}" if held["error"] else ""
        yield (
            f"holds {held['spans']} spans of {held['held']} processes that have ended, "
            f"for {one_line(held['target'])}{why}"
        )
    delivered, rejected = status["delivered_for_the_gone"], status["rejected_for_the_gone"]
    if delivered or rejected or status["unreadable"]:
        yield (
            f"for processes that have ended: {delivered} spans delivered, {rejected} rejected, "
            f"{status['unreadable']} memories unreadable"
        )
