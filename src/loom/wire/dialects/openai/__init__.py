"""OpenAI's Chat Completions, as its clients speak it (API reference, "Chat"; tried with `openai` of PyPI and npm)."""

from .answer import Events, Whole
from .errors import ApiErrorBody, error_body, status_of
from .pieces import RetractedRanges
from .request import ChatBody, ChatRequest, Completion, Model, ModelList, ProviderChatBody, read_request

__all__ = [
    "ApiErrorBody",
    "ChatBody",
    "ChatRequest",
    "Completion",
    "Events",
    "Model",
    "ModelList",
    "ProviderChatBody",
    "RetractedRanges",
    "Whole",
    "error_body",
    "read_request",
    "status_of",
]
