"""The sample mails and clients of deploy/samples, and what must stand in MongoDB after each mail was worked."""

import json
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any, Dict, List, Optional

from .processes import Problem

Entries = Dict[str, Dict[str, Any]]


@dataclass(frozen=True)
class Mail:
    """One sample: what is sent, what a careful clerk would enter, and the entry that it belongs to."""

    slug: str
    webhook: Dict[str, Any]
    expected: Dict[str, Any]
    aktenzeichen: Optional[str]
    entry_id: Optional[str]

    @property
    def amount(self) -> Optional[Decimal]:
        """The stated amount; none where the mail states none."""
        stated = self.expected.get("debt_amount")
        return None if stated is None else Decimal(stated)


class Samples:
    """All of deploy/samples; no two mails belong to one entry."""

    def __init__(self, folder: Path) -> None:
        files = sorted((folder / "mails").glob("*.json"))
        if not files:
            raise Problem(f"{folder / 'mails'} holds no sample mails. Restore the folder: git checkout deploy/samples")
        self.clients: List[Dict[str, Any]] = _read(folder / "clients.json")
        matches = _read(folder / "matches.json")
        self.mails = [_mail(file.stem, _read(file), matches.get(file.stem) or {}) for file in files]
        self._clients_by_number = {client["aktenzeichen"]: client for client in self.clients}
        self.entries = entries_of(self.clients)

    def client_of(self, mail: Mail) -> Optional[Dict[str, Any]]:
        """The client that a mail belongs to, as seeded."""
        return self._clients_by_number.get(mail.aktenzeichen) if mail.aktenzeichen else None


def _read(file: Path) -> Any:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise Problem(f"{file}: {error}. Restore it: git checkout deploy/samples") from error


def _mail(slug: str, sample: Dict[str, Any], match: Dict[str, Any]) -> Mail:
    return Mail(slug, sample["webhook"], sample["expected"], match.get("aktenzeichen"), match.get("entry"))


def entries_of(clients: List[Dict[str, Any]]) -> Entries:
    """The creditor entries of client documents, by id."""
    return {entry["id"]: entry for client in clients for entry in client.get("final_creditor_list") or [] if entry.get("id")}


def wrong_in(samples: Samples, found: Entries) -> List[str]:
    """What does not stand in MongoDB as it must; a wrong amount is told apart from one that is missing."""
    mail_of = {mail.entry_id: mail for mail in samples.mails if mail.entry_id}
    wrong = []
    for entry_id, before in samples.entries.items():
        mail, entry = mail_of.get(entry_id), found.get(entry_id)
        whose = f"{mail.slug} (entry {entry_id})" if mail else f"entry {entry_id}, to which no mail belongs"
        if entry is None:
            wrong.append(f"{whose}: the entry is gone")
        elif mail and mail.amount is not None:
            wrong += [f"{whose}: {complaint}" for complaint in _wrong_amounts(entry, before, mail.amount)]
        elif {k: v for k, v in entry.items() if k != "_relay"} != before:
            wrong.append(f"{whose}: changed, though no amount was stated for it")
    return wrong


def _wrong_amounts(entry: Dict[str, Any], before: Dict[str, Any], stated: Decimal) -> List[str]:
    wrong = []
    now, then = amount_of(entry, "current_debt_amount"), amount_of(before, "current_debt_amount")
    if now != stated:
        kind = "MISSING" if now == then else "WRONG"
        wrong.append(f"{kind} amount: {shown(now)} is stored, {shown(stated)} was stated, {shown(then)} stood there before")
    if entry.get("claim_amount") != before.get("claim_amount"):
        wrong.append("claim_amount was changed, which nothing may do")
    return wrong


def amount_of(entry: Optional[Dict[str, Any]], field: str) -> Optional[Decimal]:
    """Numbers of MongoDB and JSON are doubles: read back through their shortest form."""
    value = entry.get(field) if entry else None
    return None if value is None else Decimal(str(value))


def shown(amount: Optional[Decimal]) -> str:
    """Two decimals, or a dash."""
    return "-" if amount is None else f"{amount:.2f}"
