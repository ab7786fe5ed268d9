"""`deploy/dev run`: the whole way of a mail on this machine, from the signed webhook to the amount in MongoDB.

Each run starts from the same state in databases of its own (outbox_demo), so that it can be repeated and checked.
"""

import base64
import contextlib
import hashlib
import hmac
import json
import os
import time
import unicodedata
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional

from . import installed
from .databases import Postgres, postgres_env
from .processes import Problem, output_of, step, undisturbed
from .programs import Programs, ask
from .samples import Entries, Mail, Samples, amount_of, entries_of, shown, wrong_in

DATABASE = "outbox_demo"
ARRIVAL_SECONDS = 60
# mail, client, creditor, amounts, status: a line of 120 columns at most
WIDTHS = (27, 18, 16, 20, 31)
# of review_mails.rs: what is more waits for the digest, which does not come within a run
SINGLE_LETTERS = 10
AT_ITS_END = ("completed", "not_creditor_reply", "failed")


def table_line(cells: List[str]) -> str:
    """Fixed widths, an ellipsis where something is missing; decomposed umlauts and invisible characters would shift it."""
    texts = ["".join(c for c in unicodedata.normalize("NFC", cell) if c.isprintable()) for cell in cells]
    cut = [text if len(text) <= width else text[:width - 1] + "…" for text, width in zip(texts, WIDTHS)]
    return "  ".join(f"{text:<{width}}" for text, width in zip(cut, WIDTHS)).rstrip()


class Demo:
    """One run: its programs, its mails and what became of them."""

    def __init__(self, checkout: Path, postgres: Postgres, env: Dict[str, str], commands: Optional[Dict[str, List[str]]] = None) -> None:
        """`commands`: how the programs are called, where they need not be built."""
        self.postgres = postgres
        self.psql_env = {**os.environ, "PGCONNECT_TIMEOUT": "5"} if postgres.given_url else postgres_env()
        self.programs = Programs(checkout, postgres.log.parent, env, DATABASE, self.psql_env)
        self.programs.commands = commands or {}
        self.samples = Samples(checkout / "deploy" / "samples")
        self.email_ids: Dict[str, int] = {}
        self.statuses: Dict[str, Dict[str, Any]] = {}
        self.reasons: Dict[int, str] = {}
        self.accepted: List[str] = []
        self.duplicates = 0
        self.waiting: List[int] = []
        self.for_digest = 0
        self.wrong: List[str] = []

    def run(self, once: bool) -> int:
        """Exit code 1 if anything is not as it must be."""
        pymongo = installed.pymongo(self.postgres.home / "python")
        try:
            with pymongo.MongoClient(self.programs.env["MONGODB_URL"], serverSelectionTimeoutMS=5000, connectTimeoutMS=5000,
                                     socketTimeoutMS=20000) as mongo:
                if not self.programs.commands:
                    self.programs.build()
                self._fresh_state(mongo)
                self.programs.start()
                began = time.monotonic()
                self._send_all()
                self._wait_for_all()
                self._wait_for_requests()
                self._decide_as_a_clerk()
                self._wait_for_news()
                self._report(mongo, time.monotonic() - began)
            if not once:
                self._keep_running()
        except pymongo.errors.PyMongoError as error:
            raise Problem(f"MongoDB: {str(error).partition(' (configured')[0]}. Is MONGODB_URL right?") from error
        finally:
            with undisturbed():
                stopped = self.programs.stop()
        return 0 if stopped and not self.wrong else 1

    def _fresh_state(self, mongo: Any) -> None:
        step(f"a fresh demo state: databases {DATABASE} in Postgres and MongoDB, {len(self.samples.clients)} clients")
        psql = [installed.find_psql(), "-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", self.postgres.url, "-c"]
        for statement in (f"drop database if exists {DATABASE} with (force)", f"create database {DATABASE}"):
            output_of([*psql, statement], 60, env=self.psql_env, what_to_do="Is DATABASE_URL right?")
        mongo.drop_database(DATABASE)
        clients = mongo[DATABASE]["clients"]
        clients.insert_many([dict(client) for client in self.samples.clients])
        clients.create_index("aktenzeichen")
        clients.create_index([("lastName", 1), ("firstName", 1)], collation={"locale": "de", "strength": 2})

    # --- the mails

    def _send_all(self) -> None:
        step(f"sending {len(self.samples.mails)} mails, signed")
        for mail in self.samples.mails:
            answer = self._send(mail)
            self.email_ids[mail.slug] = answer["email_id"]
            if answer.get("status") != "accepted":
                self.wrong.append(f"{mail.slug}: answered {answer.get('status')} instead of accepted")
        step("sending each of them again")
        for mail in self.samples.mails:
            answer = self._send(mail)
            if (answer.get("status"), answer["email_id"]) == ("duplicate", self.email_ids[mail.slug]):
                self.duplicates += 1
            else:
                self.wrong.append(f"{mail.slug}: sent again, answered {answer.get('status')}, email {answer['email_id']}, "
                                  f"instead of duplicate, email {self.email_ids[mail.slug]}")

    def _send(self, mail: Mail) -> Dict[str, Any]:
        body = json.dumps(mail.webhook, ensure_ascii=False).encode()
        secret = self.programs.env["ZENDESK_WEBHOOK_SECRET"].split(",")[0].strip()
        # as Zendesk signs: base64 of HMAC-SHA256 over timestamp and raw body
        timestamp = datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
        digest = hmac.new(secret.encode(), timestamp.encode() + body, hashlib.sha256).digest()
        headers = {
            "Content-Type": "application/json",
            "X-Zendesk-Webhook-Signature": base64.b64encode(digest).decode(),
            "X-Zendesk-Webhook-Signature-Timestamp": timestamp,
        }
        status, answer = ask(self.programs.ingest_address, "POST", "/v1/webhooks/zendesk", body, headers)
        self.programs.must_run()
        with contextlib.suppress(ValueError):
            read = json.loads(answer)
            if status == 200 and isinstance(read, dict) and isinstance(read.get("email_id"), int):
                return read
        raise Problem(f"{mail.slug}: ingest answered {status or 'nothing'}: {answer[:300].decode('utf-8', 'replace')}")

    @property
    def _token(self) -> str:
        return self.programs.env["API_TOKENS"].split(",")[0].strip()

    def _look_at(self, mail: Mail) -> Dict[str, Any]:
        path = f"/v1/emails/{self.email_ids[mail.slug]}"
        status, answer = ask(self.programs.ingest_address, "GET", path, headers={"Authorization": f"Bearer {self._token}"})
        if status == 200:
            self.statuses[mail.slug] = json.loads(answer)
        elif 400 <= status < 500:
            raise Problem(f"GET {path}: ingest answered {status}: {answer[:300].decode('utf-8', 'replace')}")
        return self.statuses.get(mail.slug, {})

    def _wait_for_all(self) -> None:
        open_mails = self._wait_for(self.samples.mails, self._is_at_its_end, "mails at their end")
        for mail in open_mails:
            status = self.statuses.get(mail.slug, {})
            shown_status = ", ".join(f"{name} {status.get(name)}" for name in ("processing_status", "sync_status", "sync_error"))
            self.wrong.append(f"{mail.slug}: not at its end after {ARRIVAL_SECONDS} s: {shown_status}")

    @staticmethod
    def _is_at_its_end(status: Dict[str, Any]) -> bool:
        # a mail whose client is not in MongoDB is parked until the client comes: nothing more will happen here
        parked = status.get("processing_status") == "matching" and status.get("match_status") == "no_match"
        return parked or status.get("processing_status") in AT_ITS_END

    def _wait_for(self, mails: List[Mail], is_done: Callable[[Dict[str, Any]], bool], what: str) -> List[Mail]:
        """Returns the mails that are not done when the time is over."""
        deadline, told_at, told = time.monotonic() + ARRIVAL_SECONDS, 0.0, -1
        left = list(mails)
        while True:
            left = [mail for mail in left if not is_done(self._look_at(mail))]
            if len(left) != told and (time.monotonic() - told_at > 1 or not left):
                step(f"{len(mails) - len(left)} of {len(mails)} {what}")
                told_at, told = time.monotonic(), len(left)
            if not left or time.monotonic() > deadline:
                return left
            self.programs.must_run()
            time.sleep(0.1)

    # --- the letters to the firm

    def _letters_of(self, kind: str) -> List[int]:
        """The mails that the letters of one kind are about; the Message-ID is the outbox key."""
        ids = [dict(letter["headers"]).get("Message-ID", "") for letter in self.programs.letters()]
        return sorted(int(message_id.split(".")[1]) for message_id in ids if message_id.startswith(f"<{kind}."))

    def _wait_for_letters(self, kind: str, count: int) -> List[int]:
        deadline = time.monotonic() + ARRIVAL_SECONDS
        while len(self._letters_of(kind)) < count and time.monotonic() < deadline:
            self.programs.must_run()
            time.sleep(0.1)
        return self._letters_of(kind)

    def _wait_for_requests(self) -> None:
        """Before the clerk decides: what is settled asks nobody any more."""
        self.waiting = sorted(self.email_ids[slug] for slug, status in self.statuses.items()
                              if status.get("match_status") in ("needs_review", "no_match"))
        self.for_digest = max(0, len(self.waiting) - SINGLE_LETTERS)
        self._wait_for_letters("review_notification", len(self.waiting) - self.for_digest)

    def _wait_for_news(self) -> None:
        """After the clerk: the last letters. Only now it is known that there were not too many."""
        written = sorted(self.email_ids[slug] for slug, status in self.statuses.items() if status.get("sync_status") == "synced")
        told = self._wait_for_letters("debt_update_notification", len(written))
        if told != written:
            self.wrong.append(f"letters about written amounts: about the emails {told} instead of {written}")
        asked, wanted = self._letters_of("review_notification"), len(self.waiting) - self.for_digest
        if len(asked) != wanted or len(set(asked)) != wanted or not set(asked) <= set(self.waiting):
            self.wrong.append(f"letters that ask for a decision: about the emails {asked} instead of {wanted} of {self.waiting}")

    def _show_letters(self) -> None:
        letters = self.programs.letters()
        told, asked = (len(self._letters_of(kind)) for kind in ("debt_update_notification", "review_notification"))
        rest = f", {self.for_digest} more wait for the digest" if self.for_digest else ""
        counts = f"{told} about written amounts, {asked} that ask for a decision{rest}"
        print(f"{len(letters)} letters to the firm: {counts}; one of them:\n")
        if letters:
            print(f"  {dict(letters[-1]['headers']).get('Subject')}", *letters[-1]["text"].splitlines()[:13], sep="\n  ")
        print("")

    # --- the clerk

    def _decide_as_a_clerk(self) -> None:
        """Accepts what is held although the mail states this amount (lower than the stored one); leaves the rest."""
        mail_of = {self.email_ids[mail.slug]: mail for mail in self.samples.mails}
        accepted = []
        for item in self._held():
            mail = mail_of.get(item["email_id"])
            self.reasons[item["email_id"]] = str(item.get("reason") or "")
            if mail and mail.entry_id and mail.amount is not None and amount_of(item, "new_amount") == mail.amount:
                old = shown(amount_of(item, "old_amount"))
                step(f"accepting {mail.slug}: {old} -> {shown(mail.amount)}, held as {item.get('reason')}")
                try:
                    self.programs.relay("review", "accept", str(item["email_id"]), "--by", "demo")
                    accepted.append(mail)
                except Problem as problem:
                    self.wrong.append(f"{mail.slug}: could not be accepted: {problem} {' / '.join(problem.log[-3:])}")
        if not accepted:
            return
        self.accepted = [mail.slug for mail in accepted]
        still_held = self._wait_for(accepted, self._is_decided, "accepted mails written")
        self.wrong += [f"{mail.slug}: accepted, but not written after {ARRIVAL_SECONDS} s" for mail in still_held]

    def _is_decided(self, status: Dict[str, Any]) -> bool:
        return self._is_at_its_end(status) and status.get("match_status") != "needs_review"

    def _held(self) -> List[Dict[str, Any]]:
        try:
            held = json.loads(self.programs.relay("review", "list", "--json"))
        except ValueError as error:
            raise Problem(f"relay review list --json: not JSON: {error}") from error
        items = [item for item in held if isinstance(item, dict) and isinstance(item.get("email_id"), int)]
        return [item for item in items if item.get("state") == "held"]

    # --- the outcome

    def _report(self, mongo: Any, took_seconds: float) -> None:
        found = entries_of(list(mongo[DATABASE]["clients"].find({})))
        self.wrong += wrong_in(self.samples, found)
        head = [["mail", "client", "creditor", "  before -> after", "status"], ["-" * width for width in WIDTHS]]
        print("", *map(table_line, [*head, *(self._row(mail, found) for mail in self.samples.mails)]), sep="\n")
        print(f"\n{', '.join(self._counts())}, {took_seconds:.1f} s")
        self._show_letters()
        if self.wrong:
            print(f"\n{len(self.wrong)} WRONG:")
            for line in self.wrong:
                print(f"  {line}")
        else:
            print("every stated amount is in MongoDB at its entry, every claim_amount is as it was, nothing else changed")
        print("", flush=True)

    def _counts(self) -> List[str]:
        statuses = [self.statuses.get(mail.slug, {}) for mail in self.samples.mails]

        def having(field: str, value: str) -> int:
            return sum(status.get(field) == value for status in statuses)

        rare = {"waiting for their client": having("match_status", "no_match"), "failed": having("processing_status", "failed")}
        return [
            f"{len(self.email_ids)} mails sent",
            f"{self.duplicates} duplicates answered",
            f"{having('sync_status', 'synced')} amounts written",
            f"{having('match_status', 'needs_review')} waiting for a person",
            *(f"{count} {what}" for what, count in rare.items() if count),
            f"{having('processing_status', 'not_creditor_reply')} not a creditor's reply",
        ]

    def _row(self, mail: Mail, found: Entries) -> List[str]:
        client = self.samples.client_of(mail)
        name = f"{client['lastName']}, {client['firstName']}" if client else mail.expected.get("client_name") or "-"
        creditor = mail.expected.get("creditor_name") or mail.webhook.get("from_name") or mail.webhook.get("from_email") or "-"
        before, after = (shown(amount_of(entries.get(mail.entry_id or ""), "current_debt_amount"))
                         for entries in (self.samples.entries, found))
        return [mail.slug, name, creditor, f"{before:>8} -> {after:>8}", self._status_text(mail)]

    def _status_text(self, mail: Mail) -> str:
        status = self.statuses.get(mail.slug, {})
        if status.get("match_status") == "needs_review":
            return f"held: {self.reasons.get(self.email_ids[mail.slug]) or 'no reason given'}"
        if status.get("match_status") == "no_match":
            return "client not found yet"
        if status.get("processing_status") == "completed":
            return f"{status.get('outcome') or 'completed'}{', accepted' if mail.slug in self.accepted else ''}"
        return str(status.get("processing_status") or "unknown")

    def _keep_running(self) -> None:
        first = self.email_ids[self.samples.mails[0].slug]
        step(f"ingest    http://{self.programs.ingest_address}  (admin http://{self.programs.ingest_admin}/metrics)")
        step(f"relay     admin http://{self.programs.relay_admin}/metrics")
        step(f"letters   {self.programs.letters_folder}")
        step(f"Postgres  {self.programs.env['DATABASE_URL']}")
        step(f"MongoDB   {self.programs.env['MONGODB_URL']} database {DATABASE}")
        step(f"try: curl -sS -H 'Authorization: Bearer {self._token}' http://{self.programs.ingest_address}/v1/emails/{first}")
        step("running until Ctrl-C")
        try:
            while True:
                self.programs.must_run()
                time.sleep(0.3)
        except KeyboardInterrupt:
            step("ending")
