"""Any server that speaks OpenAI's Chat Completions. What is said on the line is in `completions`."""

from __future__ import annotations

from typing import Any, Literal, Unpack
from urllib.parse import urlsplit

from loom.model import limits
from loom.model.errors import InvalidInput, RemoteProtocolError, StartOver, UsageError
from loom.wire import json

from .ask import Ask
from .completions import OPENAI, Answer, Prefix, request_body
from .http import Connecting, HttpModel, Question
from .schemas import OutputMode

__all__ = ["OPENAI_URL", "OpenAICompatible", "Prefixing"]

OPENAI_URL = "https://api.openai.com/v1"

Prefixing = Literal["message", "prefix", "template", "never"]
"""How a server goes on from an answer that was begun; see `OpenAICompatible`."""

_PREFIXES: dict[Prefixing, Prefix | None] = {
    "message": Prefix({}, {}),
    "prefix": Prefix({"prefix": True}, {}),
    "template": Prefix({}, {"add_generation_prompt": False, "continue_final_message": True}),
    "never": None,
}

_BY_HOST: dict[str, Prefixing] = {
    "api.openai.com": "never",
    "api.mistral.ai": "prefix",
    "api.deepseek.com": "prefix",  # refused but below /beta, and then it starts over
}

_BY_OWNER: dict[str, Prefixing] = {
    "llamacpp": "message",
    "library": "message",  # Ollama's own models
    "vllm": "template",
    "sglang": "template",
}
"""By what a server's list of models says of the owner: the only place where these servers say who they are."""


class OpenAICompatible(HttpModel):
    """A model behind OpenAI's Chat Completions: OpenAI, Cloudflare Workers AI, vLLM, Ollama, llama.cpp.

    What `HttpModel` says holds. Without `model`, and when a call names none, it is the first that
    the server lists.

    `prefixing` says how the server goes on from an answer that was begun (``continue_from=``): ``message``, it does so
    from a last message of the assistant's (Ollama, llama.cpp); ``prefix``, if that message says so (Mistral, DeepSeek);
    ``template``, if the request says so (vLLM, SGLang); ``never``. Without it the server is known by its host or its
    list of models, and one that is not known never does.
    """

    refusals = OPENAI
    base_hint = "base URLs often end in /v1"
    models_path = "models"
    modes = ("json_schema", "json_object", "tool", "prompt")

    def __init__(
        self,
        base_url: str = OPENAI_URL,
        *,
        prefixing: Prefixing | None = None,
        **connecting: Unpack[Connecting],
    ) -> None:
        super().__init__(base_url, **connecting)
        self._prefixing = prefixing or _BY_HOST.get(self._url.host)

    def _authority(self) -> dict[str, str]:
        return {"authorization": f"Bearer {self._key}"} if self._key else {}

    async def _named(self, ask: Ask) -> str:
        return ask.model or self._model or await self._first_listed()

    async def _question(self, ask: Ask, mode: OutputMode) -> Question:
        prefix = await self._prefix() if ask.continues else None
        limit_field = _limit_field(self._url.host)
        body = request_body(ask, await self._named(ask), limit_field=limit_field, prefix=prefix, mode=mode)
        return Question("chat/completions", body, Answer(by_tool=ask.schema is not None and mode == "tool"))

    async def _prefix(self) -> Prefix:
        if self._prefixing is None:
            self._prefixing = await self._known_by_its_list()
        prefix = _PREFIXES[self._prefixing]
        if prefix is None:
            raise StartOver(f"{self._place} does not go on from an answer that was begun")
        return prefix

    async def _known_by_its_list(self) -> Prefixing:
        try:
            return _BY_OWNER.get(str((await self._list())[0]["owned_by"]), "never")
        except (RemoteProtocolError, InvalidInput, LookupError, TypeError):
            return "never"

    async def _first_listed(self) -> str:
        """The server's first model (vLLM and llama.cpp serve one), asked for once."""
        unnamed = "name a model: model=, or OPENAI_MODEL"
        if self._url.host == urlsplit(OPENAI_URL).hostname:
            raise UsageError(f"{unnamed}; {self._place} has many")
        try:
            self._model = str((await self._list())[0]["id"])
        except (RemoteProtocolError, InvalidInput, LookupError, TypeError):
            raise UsageError(f"{unnamed}; {self._place} lists none") from None
        return self._model

    async def _list(self) -> Any:
        async with self._call("GET", self.models_path) as response:
            return json.decode(json.mended(await self._body(response, limits.AI_BODY_BYTES)))["data"]


def _limit_field(host: str) -> str:
    """OpenAI's newer models refuse `max_tokens`; most other servers know nothing else."""
    return "max_completion_tokens" if host.endswith((".openai.com", ".openai.azure.com")) else "max_tokens"
