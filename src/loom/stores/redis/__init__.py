"""The Redis store: logs and a queue on Redis or Valkey, which the processes of many machines share."""

from .client.address import Address, Credentials, parse_url
from .store import RedisStore

__all__ = ["Address", "Credentials", "RedisStore", "parse_url"]
