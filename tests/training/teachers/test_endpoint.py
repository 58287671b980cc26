"""An endpoint that is slow, overloaded, torn, lying or gone."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from rankloom_training.teachers.chat import PromptRefusedError, user
from rankloom_training.teachers.endpoint import MAX_TRIES, ChatEndpoint
from rankloom_training.teachers.teacher import TeacherError
from training.teachers.chat_server import ChatServer, Messages, ServerReply, says, serving

QUESTION = [user("What now?")]
Serve = Callable[[Callable[[Messages, int], ServerReply]], ChatServer]


@pytest.fixture
def serve() -> Iterator[Serve]:
    with ExitStack() as exits:
        yield lambda answer: exits.enter_context(serving(answer))


def endpoint(server: ChatServer, *, key: str = "", timeout_s: float = 30.0) -> ChatEndpoint:
    return ChatEndpoint(server.url, "large", key, timeout_s=timeout_s, first_wait_s=0.001)


def test_a_question_is_sent_as_the_protocol_says(serve: Serve) -> None:
    server = serve(lambda *_: says("Yes. Fine."))
    completion = endpoint(server, key="secret").complete(QUESTION, 64)
    assert (completion.text, completion.truncated, completion.num_tokens) == (
        *("Yes. Fine.", False),
        50,
    )
    assert server.keys == ["Bearer secret"]
    assert server.calls == [
        {"model": "large", "messages": QUESTION, "max_tokens": 64, "temperature": 0}
    ]


def test_without_a_key_none_is_sent(serve: Serve) -> None:
    server = serve(lambda *_: says("Yes."))
    endpoint(server).complete(QUESTION, 8)
    assert server.keys == [None]


FAULTS = {
    "rate limit": ServerReply(b"slow down", 429, {"Retry-After": "0"}),
    "overload": ServerReply(b"oops", 503),
    "torn": ServerReply(b'{"choices": [', missing=500),
    "not JSON": ServerReply(b"<html>welcome</html>"),
    "another shape": ServerReply(b'{"choices": []}'),
    "a list": ServerReply(b"[1]"),
    "not what it says": ServerReply(b"plain", headers={"Content-Encoding": "gzip"}),
}


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS.keys())
def test_a_passing_fault_is_tried_again(serve: Serve, fault: ServerReply) -> None:
    server = serve(lambda _, number: fault if number < 2 else says("No. Long."))
    assert endpoint(server).complete(QUESTION, 8).text == "No. Long."
    assert len(server.calls) == 3


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS.keys())
def test_a_lasting_fault_ends_after_bounded_tries(serve: Serve, fault: ServerReply) -> None:
    server = serve(lambda *_: fault)
    with pytest.raises(TeacherError, match=f"{MAX_TRIES} times; see to the server"):
        endpoint(server).complete(QUESTION, 8)
    assert len(server.calls) == MAX_TRIES


def test_a_slow_server_is_given_up(serve: Serve) -> None:
    enough = threading.Event()

    def answer(_: Messages, number: int) -> ServerReply:
        if number == 0:
            enough.wait(30.0)
        return says("Yes. At last.")

    server = serve(answer)
    assert endpoint(server, timeout_s=0.5).complete(QUESTION, 8).text == "Yes. At last."
    enough.set()


def test_a_dead_server_ends_with_what_to_do(serve: Serve) -> None:
    server = serve(lambda *_: says("Yes."))
    asked = endpoint(server)
    server.close()
    with pytest.raises(TeacherError, match="the connection failed, 6 times; see to the server"):
        asked.complete(QUESTION, 8)


@pytest.mark.parametrize("status", [401, 403, 404])
def test_a_wrong_key_or_address_is_not_tried_again(serve: Serve, status: int) -> None:
    server = serve(lambda *_: ServerReply(b"no", status))
    with pytest.raises(TeacherError, match=f"status {status}; check address, model and key"):
        endpoint(server).complete(QUESTION, 8)
    assert len(server.calls) == 1


@pytest.mark.parametrize("status", [400, 413, 422])
def test_a_refused_prompt_concerns_that_prompt_alone(serve: Serve, status: int) -> None:
    server = serve(lambda *_: ServerReply(b"too long", status))
    with pytest.raises(PromptRefusedError):
        endpoint(server).complete(QUESTION, 8)
    assert len(server.calls) == 1


def test_a_cut_answer_says_so_and_uncounted_tokens_are_estimated(serve: Serve) -> None:
    server = serve(lambda *_: says("Yes. But " * 9, cut=True, tokens=None))
    completion = endpoint(server).complete(QUESTION, 8)
    assert completion.truncated
    assert completion.num_tokens > 20


def test_thoughts_before_the_answer_are_left_out(serve: Serve) -> None:
    server = serve(lambda *_: says("<think>No? Hm.</think>\n\nYes. Good."))
    assert endpoint(server).complete(QUESTION, 8).text == "Yes. Good."
