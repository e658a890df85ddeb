"""Outages are told once, and once that they are over."""

from __future__ import annotations

import logging

import pytest

from loom.model.errors import Unavailable
from loom.remote.http import HttpTransport
from loom.remote.outages import Outages

from .scripted import Answer, chunked, said, scripted, sized
from .test_follower import QUICK, then_whole


def test_told_once_each_way(caplog: pytest.LogCaptureFixture) -> None:
    told: list[bool] = []
    outages = Outages("http://here", told.append)
    outages.end()
    for _ in range(3):
        outages.begin(Unavailable("http://here: refused"))
    outages.end()
    outages.end()
    assert told == [True, False]
    assert [(record.levelno, record.message) for record in caplog.records] == [
        (logging.WARNING, "connection lost; trying again: http://here: refused"),
        (logging.WARNING, "http://here answers again"),
    ]


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        ([Answer(chunked(said(1, 2), ended=False))], []),  # a cut that is mended at once is no outage
        ([sized("503 Service Unavailable")] * 3, [True, False]),
        ([Answer(chunked(said(1, 2), ended=False)), *[sized("502 Bad Gateway")] * 2], [True, False]),
    ],
)
async def test_a_follower_tells(answers: list[Answer], expected: list[bool]) -> None:
    told: list[bool] = []
    async with scripted() as server:
        server.react = then_whole(server, answers)
        transport = HttpTransport(server.url, patience=QUICK, told=told.append)
        async for _ in transport.follow("run"):
            pass
        await transport.aclose()
    assert told == expected
