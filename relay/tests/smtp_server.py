"""A mail server for tests and for the demo: takes letters and keeps each as a JSON file, or fails as it is told.

smtp_server.py FOLDER [--port N] [--auth USER:PASSWORD] [--certificate PEM --key PEM [--smtps]] [--with-parent]

Prints its port on a line of its own once it serves. FOLDER/control.json, read at every step, says what is to fail:
{"mail": REPLY, "rcpt": {ADDRESS or "*": REPLY}, "data": REPLY, "hang" or "close"}. "hang" and "close" keep the letter first.
With --certificate it offers STARTTLS, or with --smtps speaks TLS from the start. --with-parent: ends when standard input does.
"""

import argparse
import asyncio
import email
import email.policy
import json
import os
import signal
import ssl
import sys
import threading
from pathlib import Path
from typing import Any, Dict, Optional

from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session


class Letters:
    """The handler: what becomes of each step."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.count = len(list(folder.glob("*.letter")))

    def told(self) -> Dict[str, Any]:
        """What is to fail now."""
        try:
            return dict(json.loads((self.folder / "control.json").read_text("utf-8")))
        except FileNotFoundError:
            return {}

    async def handle_MAIL(self, _server: SMTP, _session: Session, envelope: Envelope, address: str, options: Any) -> str:
        """The sender."""
        reply = self.told().get("mail")
        if reply:
            return str(reply)
        envelope.mail_from = address
        envelope.mail_options.extend(options)
        return "250 OK"

    async def handle_RCPT(self, _server: SMTP, _session: Session, envelope: Envelope, address: str, options: Any) -> str:
        """A recipient."""
        replies = self.told().get("rcpt", {})
        reply = replies.get(address) or replies.get("*")
        if reply:
            return str(reply)
        envelope.rcpt_tos.append(address)
        envelope.rcpt_options.extend(options)
        return "250 OK"

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        """The letter."""
        how = self.told().get("data")
        if how and how not in ("hang", "close"):
            return str(how)
        self.keep(server, session, envelope)
        if how == "hang":
            await asyncio.sleep(3600)
        if how == "close" and server.transport is not None:
            server.transport.abort()
        return "250 OK"

    def keep(self, server: SMTP, session: Session, envelope: Envelope) -> None:
        """One file per letter, whole or not at all."""
        content = envelope.original_content or b""
        message = email.message_from_bytes(content, policy=email.policy.default)
        parts = {kind: message.get_body(preferencelist=(kind,)) for kind in ("plain", "html")}
        letter = {
            "from": envelope.mail_from,
            "to": envelope.rcpt_tos,
            "headers": [[name, str(value)] for name, value in message.items()],
            "raw_headers": content.split(b"\r\n\r\n", 1)[0].decode("ascii", "replace"),
            "text": parts["plain"].get_content() if parts["plain"] else None,
            "html": parts["html"].get_content() if parts["html"] else None,
            "tls": server.transport is not None and server.transport.get_extra_info("ssl_object") is not None,
            "user": session.auth_data.login.decode() if isinstance(session.auth_data, LoginPassword) else None,
        }
        self.count += 1
        part = self.folder / "part"
        part.write_text(json.dumps(letter, ensure_ascii=False), "utf-8")
        os.replace(part, self.folder / f"{self.count:06}.letter")


async def serve(arguments: argparse.Namespace) -> None:
    """Until somebody ends the process."""
    letters = Letters(arguments.folder)
    context: Optional[ssl.SSLContext] = None
    if arguments.certificate:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(arguments.certificate, arguments.key)

    def authenticate(_server: SMTP, _session: Session, _envelope: Envelope, _mechanism: str, data: Any) -> AuthResult:
        given = f"{data.login.decode()}:{data.password.decode()}"
        return AuthResult(success=given == arguments.auth, handled=False, auth_data=data)

    def protocol() -> SMTP:
        return SMTP(
            letters, hostname="mail.example", auth_require_tls=False, auth_required=bool(arguments.auth),
            authenticator=authenticate if arguments.auth else None,
            tls_context=None if arguments.smtps else context, require_starttls=bool(context) and not arguments.smtps,
        )

    loop = asyncio.get_running_loop()
    server = await loop.create_server(protocol, "127.0.0.1", arguments.port, ssl=context if arguments.smtps else None)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


def end_with_parent() -> None:
    """A test that is killed must not leave a server behind."""
    sys.stdin.read()
    os._exit(0)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--auth")
    parser.add_argument("--certificate")
    parser.add_argument("--key")
    parser.add_argument("--smtps", action="store_true")
    parser.add_argument("--with-parent", action="store_true")
    arguments = parser.parse_args()
    if arguments.with_parent:
        threading.Thread(target=end_with_parent, daemon=True).start()
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    asyncio.run(serve(arguments))


if __name__ == "__main__":
    main()
