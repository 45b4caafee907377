"""What an endpoint remembers of its answers: one is written once a second, and nobody gets another's."""

from __future__ import annotations

import asyncio
import tracemalloc
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from hypothesis import given
from hypothesis import strategies as st
from questions import NOW, VAULT

from aiomsi.endpoint import Answer, TokenAsked, TokenGiven
from aiomsi.endpoint.answers import Answers
from aiomsi.endpoint.hosts import chosen

if TYPE_CHECKING:
    from aiomsi.endpoint.protocol import Body, Host

ROWS = chosen(
    ("app_service", "app_service_2017", "azure_ml", "imds", "cloud_shell", "entra"),
    date_text=True,
    arc_ignores_selectors=False,
    has_root=True,
)
TOKENS = [TokenGiven(token, NOW + lifetime) for token in ("a", "b") for lifetime in (60, 60, 86_400.5)]
IDENTITIES: list[dict[str, Any]] = [
    {},
    {"identity_kind": "client_id", "identity": "1"},
    {"identity_kind": "object_id", "identity": "1"},
    {"identity_kind": "client_id", "identity": "2"},
    {"tenant_id": "contoso.example"},
]
QUESTIONS = st.tuples(
    st.sampled_from(ROWS),
    st.sampled_from([VAULT, f"{VAULT}/", "https://graph.microsoft.com"]),
    st.sampled_from(IDENTITIES),
    st.sampled_from(TOKENS),
    st.sampled_from([-0.6, 0.0, 0.4, 1.0]),
)


@given(st.lists(QUESTIONS, max_size=30))
def test_everybody_gets_what_would_be_written_now(questions: list[tuple[Any, ...]]) -> None:
    """Another host, resource, identity, token or second never brings an answer that was written for one before."""
    moment, held = NOW, TOKENS[0]

    async def issue(_: TokenAsked) -> TokenGiven:
        return held

    answers = Answers(issue, lambda: moment)
    for row, resource, identity, token, passed in questions:
        moment, held = moment + passed, token
        asked = TokenAsked(row.name, resource, **identity)
        answer = asyncio.run(answers.answer(row, asked))
        assert answer.content == Answer(body=row.body(row, asked, token, moment)).content


async def test_an_answer_is_written_once_a_second() -> None:
    """However many ask for a token, its text is made once in each second, and anew for a new token."""
    moment, held, written = NOW, TOKENS[0], 0

    def body(host: Host, asked: TokenAsked, given: TokenGiven, now: float) -> Body:
        nonlocal written
        written += 1
        return ROWS[0].body(host, asked, given, now)

    async def issue(_: TokenAsked) -> TokenGiven:
        return held

    row = replace(ROWS[0], body=body)
    answers, asked = Answers(issue, lambda: moment), TokenAsked(row.name, VAULT)
    counts = []
    for passed, token in ((0, TOKENS[0]), (0.9, TOKENS[0]), (0.1, TOKENS[0]), (0, TOKENS[-1])):
        moment, held = moment + passed, token
        for _ in range(10):
            await answers.answer(row, asked)
        counts.append(written)
    assert counts == [1, 1, 2, 3]


async def test_what_clients_make_up_is_not_remembered_for_long() -> None:
    """The memory of answers does not grow with the resources that are asked for within a second."""

    async def issue(asked: TokenAsked) -> TokenGiven:
        return TokenGiven(asked.resource * 1_000, NOW + 60)

    answers = Answers(issue, lambda: NOW)
    tracemalloc.start()
    try:
        for number in range(2_000):
            await answers.answer(ROWS[0], TokenAsked(ROWS[0].name, f"{number:010}"))
        assert tracemalloc.get_traced_memory()[0] < 5_000_000
    finally:
        tracemalloc.stop()
