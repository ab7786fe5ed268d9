"""Requests and addresses: what the demo says to ingest and relay, and where."""

import base64
import hashlib
import hmac
import http.client
from datetime import datetime, timezone
from typing import Dict, Optional, Tuple
from urllib.parse import urlsplit, urlunsplit

from .console import step
from .server import free_port, port_is_free


def ask(
    address: str, method: str, path: str, body: Optional[bytes] = None, headers: Optional[Dict[str, str]] = None
) -> Tuple[int, bytes]:
    """One HTTP request to this machine, past any proxy of the environment; status 0 if nobody answers."""
    connection = http.client.HTTPConnection(address, timeout=10)
    try:
        connection.request(method, path, body=body, headers=headers or {})
        answer = connection.getresponse()
        return answer.status, answer.read()
    except (OSError, http.client.HTTPException):
        return 0, b""
    finally:
        connection.close()


def zendesk_headers(secret: str, body: bytes) -> Dict[str, str]:
    """As Zendesk signs: base64 of HMAC-SHA256 over timestamp and raw body."""
    timestamp = datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
    digest = hmac.new(secret.encode(), timestamp.encode() + body, hashlib.sha256).digest()
    return {
        "Content-Type": "application/json",
        "X-Zendesk-Webhook-Signature": base64.b64encode(digest).decode(),
        "X-Zendesk-Webhook-Signature-Timestamp": timestamp,
    }


def with_database(url: str, database: str) -> str:
    """The same Postgres server, another database; both forms of a connection string."""
    if "://" not in url:
        return f"{url} dbname={database}"
    return urlunsplit(urlsplit(url)._replace(path=f"/{database}"))


def listen_address(wanted: Optional[str]) -> str:
    """The wanted one if nobody listens there, else a free port."""
    if wanted:
        host, _, port = wanted.rpartition(":")
        if host and port.isdigit() and port_is_free(int(port), host):
            return wanted
        step(f"INGEST_LISTEN {wanted} is not free: taking another port")
    return f"127.0.0.1:{free_port()}"
