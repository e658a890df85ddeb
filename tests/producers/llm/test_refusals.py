"""Refusals in their shapes, without a connection. What each status becomes is tested over a socket, in test_openai."""

from __future__ import annotations

from typing import Any

import pytest

from loom.producers.llm.completions import OPENAI
from loom.producers.llm.refusals import Fault, fault_of, refusal


@pytest.mark.parametrize(
    ("document", "fault"),
    [
        (
            {"error": {"message": "m", "type": "invalid_request_error", "code": None, "param": "model"}},
            Fault("m", "invalid_request_error", "model", 400),
        ),
        ({"error": "model not found"}, Fault("model not found")),
        ({"success": False, "errors": [{"code": 7009, "message": "m"}]}, Fault("m", "7009")),
        ({"detail": "m"}, Fault("m")),
        ({"detail": [{"msg": "m"}]}, Fault('[{"msg":"m"}]')),
        ("m", Fault("m")),
        ([], Fault()),
        ({"error": {}}, Fault()),
        (None, Fault()),
    ],
)
def test_faults_in_their_shapes(document: Any, fault: Fault) -> None:
    assert fault_of(document, OPENAI) == fault


def test_a_placeholder_for_a_key_is_not_blotted_out() -> None:
    assert "ollama says no" in refusal(400, Fault("ollama says no"), OPENAI, secret="ollama").message
    assert "ollama" not in refusal(400, Fault("ollama-key says no"), OPENAI, secret="ollama-key").message
