"""Certificates of an authority that exists for one test run."""

from __future__ import annotations

from pathlib import Path

import trustme


class Certificates:
    """Files: `ca`, the server's `cert` and `key` for 127.0.0.1 and localhost, a client's `client_cert`, `client_key`.

    `clients`: whether a server wants a client's certificate ("yes", "no", "optional").
    """

    def __init__(self, folder: Path, *, clients: str = "optional") -> None:
        folder.mkdir(parents=True, exist_ok=True)
        authority = trustme.CA()
        self._clients = clients
        self.ca = folder / "ca.pem"
        authority.cert_pem.write_to_path(str(self.ca))
        self.cert, self.key = _issue(authority, folder / "server", "127.0.0.1", "localhost")
        self.client_cert, self.client_key = _issue(authority, folder / "client", "client@example.org")

    def config(self) -> dict[str, str]:
        """Lines of redis.conf."""
        return {
            "tls-cert-file": str(self.cert),
            "tls-key-file": str(self.key),
            "tls-ca-cert-file": str(self.ca),
            "tls-auth-clients": self._clients,
        }


def _issue(authority: trustme.CA, stem: Path, *names: str) -> tuple[Path, Path]:
    issued = authority.issue_cert(*names)
    cert, key = stem.with_suffix(".pem"), stem.with_suffix(".key")
    for blob in issued.cert_chain_pems:
        blob.write_to_path(str(cert), append=True)
    issued.private_key_pem.write_to_path(str(key))
    return cert, key
