"""Refusals in their shapes, without a connection. What each status becomes is tested over a socket, in test_openai."""

from __future__ import annotations

import json
from typing import Any

import pytest

from loom.model.errors import InvalidInput, LimitExceeded, LoomError, Unauthorized
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
        ({"error": {"message": "m", "code": ["c"], "type": "rate_limit_error"}}, Fault("m", "['c']", status=429)),
        ({"errors": [{"message": "m", "code": {"c": 1}}]}, Fault("m", "{'c': 1}")),
        ({"detail": [{"msg": "m"}]}, Fault('[{"msg":"m"}]')),
        ("m", Fault("m")),
        ([], Fault()),
        ({"error": {}}, Fault()),
        (None, Fault()),
    ],
)
def test_faults_in_their_shapes(document: Any, fault: Fault) -> None:
    assert fault_of(document, OPENAI) == fault


OPENAI_BODIES: list[tuple[str, int, str, type[LoomError], str, bool]] = [
    (
        "openai context",
        400,
        '{"error":{"message":"This model\'s maximum context length is 128000 tokens. However, your messages resulted in'
        ' 130042 tokens.","type":"invalid_request_error","param":"messages","code":"context_length_exceeded"}}',
        LimitExceeded,
        "context_length",
        False,
    ),
    (
        "vllm context",
        400,
        '{"error":{"message":"This model\'s maximum context length is 4096 tokens. However, you requested 5000 tokens.'
        ' Please reduce the length of the messages.","type":"BadRequestError","param":null,"code":400}}',
        LimitExceeded,
        "context_length",
        False,
    ),
    (
        "llama.cpp context",
        400,
        '{"error":{"code":400,"message":"request (9001 tokens) exceeds the available context size (4096 tokens)",'
        '"type":"exceed_context_size_error","n_prompt_tokens":9001,"n_ctx":4096}}',
        LimitExceeded,
        "context_length",
        False,
    ),
    (
        "cloudflare context",
        413,
        '{"errors":[{"message":"AiError: The estimated number of input and maximum output tokens (9000) exceeded this'
        ' model context window limit (7968).","code":5021}],"success":false,"result":{},"messages":[]}',
        LimitExceeded,
        "context_length",
        False,
    ),
    (
        "azure filter",
        400,
        '{"error":{"message":"The response was filtered due to the prompt triggering Azure OpenAI\'s content management'
        ' policy.","type":null,"param":"prompt","code":"content_filter","status":400}}',
        InvalidInput,
        "content_filter",
        False,
    ),
    (
        "openai policy",
        400,
        '{"error":{"message":"Your request was rejected by our safety system.","type":"invalid_request_error",'
        '"param":null,"code":"content_policy_violation"}}',
        InvalidInput,
        "content_filter",
        False,
    ),
    (
        "openai quota",
        429,
        '{"error":{"message":"You exceeded your current quota, please check your plan and billing details.",'
        '"type":"insufficient_quota","param":null,"code":"insufficient_quota"}}',
        LimitExceeded,
        "limit_exceeded",
        False,
    ),
    (
        "openai rate",
        429,
        '{"error":{"message":"Rate limit reached for gpt-4.1 on tokens per min (TPM): Limit 30000. Please try again in'
        ' 6.1s.","type":"tokens","param":null,"code":"rate_limit_exceeded"}}',
        LimitExceeded,
        "limit_exceeded",
        True,
    ),
    (
        "openai key",
        401,
        '{"error":{"message":"Incorrect API key provided: sk-abc.","type":"invalid_request_error","param":null,'
        '"code":"invalid_api_key"}}',
        Unauthorized,
        "unauthorized",
        False,
    ),
    (
        "openai model",
        404,
        '{"error":{"message":"The model `gpt-9` does not exist or you do not have access to it.",'
        '"type":"invalid_request_error","param":null,"code":"model_not_found"}}',
        InvalidInput,
        "invalid_input",
        False,
    ),
]
"""Bodies as these servers send them, shortened. Anthropic's are tested over a socket, in test_anthropic."""


@pytest.mark.parametrize("row", OPENAI_BODIES, ids=lambda row: row[0])
def test_recorded_refusals(row: tuple[str, int, str, type[LoomError], str, bool]) -> None:
    _, status, body, kind, code, retryable = row
    fault = fault_of(json.loads(body), OPENAI)
    error = refusal(status, fault, OPENAI, {"retry-after": "7"})
    assert (type(error), error.code, error.retryable) == (kind, code, retryable)
    assert error.details["retry_after"] == 7
    assert error.details["status"] == status
