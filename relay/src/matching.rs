//! Which client and which creditor entry a debt update belongs to. Pure; ambiguous is never guessed.
//!
//! Client: by Aktenzeichen, else by exact name in every order. Entry: by exact address, else by domain (no freemail), else by
//! significant name words; what stays tied is narrowed by the creditor's reference number and by its name, and if two are still
//! left a person decides. Comparison is by equality of folded texts: no value ever reaches a regular expression.

mod client_keys;
mod words;

use crate::client::{Client, Entry};
pub use client_keys::{ClientIndex, ClientKeys, client_keys, spellings};
use shared::message::CreditorDebtUpdate;
use std::{cell::OnceCell, collections::BTreeSet};
use words::{bare_number, domain, is_freemail, significant_words};
pub(crate) use words::{fold, sender_key};

/// Where an update belongs.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Match<'a> {
    /// Exactly one entry of one client.
    Entry(&'a Client, &'a Entry, Confidence),
    /// No client of this number or name.
    ClientMissing,
    /// A person has to decide, for this reason.
    Unclear(&'static str),
}

/// [`Match::ClientMissing`] in words.
pub const CLIENT_MISSING: &str = "no client of this number or name is in MongoDB";

/// How much the match rests on, 0 to 1; shown to people, decides nothing.
pub type Confidence = f64;

/// Finds the one entry among the clients that [`ClientIndex::select`] left.
#[must_use]
pub fn find_entry<'a>(clients: &[&'a Client], update: &CreditorDebtUpdate) -> Match<'a> {
    let pairs: Vec<Pair<'a>> =
        clients.iter().flat_map(|client| client.entries.iter().map(|entry| Pair { client, entry })).collect();
    if clients.is_empty() {
        return Match::ClientMissing;
    }
    if pairs.is_empty() {
        return Match::Unclear("the client has no list of creditors");
    }
    if let Some(key) = &update.entry_key {
        let named: Vec<_> = pairs.iter().filter(|pair| pair.entry.entry_key == *key).collect();
        return match named.as_slice() {
            [only] => only.matched(1.0),
            [] => Match::Unclear("the client has no creditor entry of the key that was named"),
            _ => Match::Unclear(
                "several clients of this name or number have an entry of the key that was named",
            ),
        };
    }
    let creditor = Creditor::of(update);
    let (mut confidence, mut best) = (1.0, creditor.by_address(&pairs));
    if best.is_empty() {
        (confidence, best) = (0.9, creditor.by_domain(&pairs));
    }
    if best.is_empty() {
        (confidence, best) = (0.8, best_by(&pairs, |pair| creditor.name_score(pair.entry)));
    }
    if best.is_empty() {
        return Match::Unclear("no creditor of the client fits the mail");
    }
    if let [only] = best.as_slice() {
        return only.matched(confidence);
    }
    let by_number = best_by(&best, |pair| u32::from(creditor.has_number_of(pair.entry)));
    let narrowed = if by_number.is_empty() { best } else { by_number };
    let by_name = best_by(&narrowed, |pair| creditor.name_score(pair.entry));
    let narrowed = if by_name.is_empty() { narrowed } else { by_name };
    match narrowed.as_slice() {
        [only] => only.matched(confidence),
        [first, rest @ ..] if rest.iter().all(|pair| pair.client.client_id == first.client.client_id) => {
            Match::Unclear("several creditor entries of the client fit equally")
        }
        _ => Match::Unclear("several clients of this name or number fit equally"),
    }
}

#[derive(Clone, Copy)]
struct Pair<'a> {
    client: &'a Client,
    entry: &'a Entry,
}

impl<'a> Pair<'a> {
    fn matched(&self, confidence: Confidence) -> Match<'a> {
        if self.entry.addressable {
            Match::Entry(self.client, self.entry, confidence)
        } else {
            Match::Unclear("the creditor's entry cannot be told from another one")
        }
    }
}

/// All with the highest score above zero.
fn best_by<'a>(pairs: &[Pair<'a>], score: impl Fn(&Pair<'a>) -> u32) -> Vec<Pair<'a>> {
    let best = pairs.iter().map(&score).max().unwrap_or(0);
    if best == 0 { Vec::new() } else { pairs.iter().filter(|pair| score(pair) == best).copied().collect() }
}

/// The mail's side, folded once; its words only where names have to decide.
struct Creditor {
    address: String,
    name: String,
    words: OnceCell<BTreeSet<String>>,
    numbers: BTreeSet<String>,
}

impl Creditor {
    fn of(update: &CreditorDebtUpdate) -> Creditor {
        // Without a name the address stands in for it.
        let name = update.creditor_name.as_deref().unwrap_or(&update.creditor_email);
        Creditor {
            address: fold(&update.creditor_email),
            name: fold(name),
            words: OnceCell::new(),
            numbers: update.reference_numbers.iter().map(|number| bare_number(number)).collect(),
        }
    }

    fn by_address<'a>(&self, pairs: &[Pair<'a>]) -> Vec<Pair<'a>> {
        let same = |pair: &&Pair<'_>| {
            pair.entry.identity.sender_email.as_deref().is_some_and(|address| {
                let address = fold(address);
                address.contains('@') && address == self.address
            })
        };
        pairs.iter().filter(same).copied().collect()
    }

    fn by_domain<'a>(&self, pairs: &[Pair<'a>]) -> Vec<Pair<'a>> {
        let Some(own) = domain(&self.address).filter(|domain| !is_freemail(domain)) else {
            return Vec::new();
        };
        let same = |pair: &&Pair<'_>| {
            pair.entry
                .identity
                .sender_email
                .as_deref()
                .is_some_and(|address| domain(&fold(address)) == Some(own))
        };
        pairs.iter().filter(same).copied().collect()
    }

    /// 0 = nothing significant in common; the whole name counts more than any number of words.
    fn name_score(&self, entry: &Entry) -> u32 {
        let score = |name: &str| {
            let own = self.words.get_or_init(|| significant_words(&self.name));
            let shared = significant_words(name).intersection(own).count();
            let whole = shared > 0 && fold(name) == self.name;
            u32::try_from(shared).unwrap_or(u32::MAX).saturating_add(if whole { 1000 } else { 0 })
        };
        entry.identity.names().map(score).max().unwrap_or(0)
    }

    fn has_number_of(&self, entry: &Entry) -> bool {
        let number = entry.identity.reference_number.as_deref().map(bare_number).unwrap_or_default();
        number.len() > 2 && self.numbers.contains(&number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::{Identity, StoredAmount};
    use proptest::prelude::*;
    use shared::message::{Origin, Revision, Stamp};

    fn client(number: &str, last: &str, first: &str, entries: Vec<Entry>) -> Client {
        Client {
            client_id: format!("{number}{last}{first}"),
            aktenzeichen: (!number.is_empty()).then(|| number.to_owned()),
            first_name: first.into(),
            last_name: last.into(),
            entries,
        }
    }

    fn entry(key: &str, name: &str, email: &str, reference: &str) -> Entry {
        let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        let identity = Identity {
            sender_name: some(name),
            sender_email: some(email),
            reference_number: some(reference),
            ..Identity::default()
        };
        Entry {
            position: 0,
            id: some(key),
            entry_key: key.into(),
            addressable: true,
            identity,
            stored: StoredAmount::None,
            answered_at: None,
            fence: None,
        }
    }

    fn update(number: &str, name: &str, creditor: &str, email: &str, numbers: &[&str]) -> CreditorDebtUpdate {
        let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        let received_at = jiff::Timestamp::UNIX_EPOCH;
        CreditorDebtUpdate {
            email_id: 1,
            client_name: some(name),
            client_aktenzeichen: some(number),
            creditor_email: email.into(),
            creditor_name: some(creditor),
            new_debt_amount: None,
            response_text: None,
            reference_numbers: numbers.iter().map(ToString::to_string).collect(),
            extraction_confidence: None,
            received_at,
            stamp: Stamp::new(received_at, 1, Revision::FIRST).unwrap(),
            origin: Origin::Mail,
            decided_by: None,
            client_id: None,
            entry_key: None,
            expected: None,
            hold: None,
        }
    }

    fn found(clients: &[Client], update: &CreditorDebtUpdate) -> Result<String, &'static str> {
        match find_entry(&ClientIndex::new(clients.iter()).select(&client_keys(update)), update) {
            Match::Entry(_, entry, _) => Ok(entry.entry_key.clone()),
            Match::ClientMissing => Err("missing"),
            Match::Unclear(reason) => Err(reason),
        }
    }

    #[test]
    fn slash_and_underscore_are_the_same_and_the_number_beats_the_name() {
        let clients = [
            client("2024_118", "Adler", "Eva", vec![entry("a", "Turmhaus GmbH", "x@turmhaus.example", "")]),
            client("2024_119", "Adler", "Eva", vec![entry("b", "Turmhaus GmbH", "x@turmhaus.example", "")]),
        ];
        assert_eq!(
            found(&clients, &update("2024/119", "Adler, Eva", "", "x@turmhaus.example", &[])),
            Ok("b".into())
        );
        let unclear = found(&clients, &update("", "Eva Adler", "", "x@turmhaus.example", &[]));
        assert!(unclear.unwrap_err().contains("several clients"));
        assert_eq!(
            found(&clients, &update("1", "Bussard, Eva", "", "x@turmhaus.example", &[])),
            Err("missing")
        );
        let nameless = update("99", "", "", "x@turmhaus.example", &["2024/118"]);
        assert_eq!(found(&clients, &nameless), Err("missing"), "a creditor's number alone names nobody");
        let twice = update("", "Adler, Eva", "", "x@turmhaus.example", &["2024/118", "2024_118", "2024/118"]);
        assert_eq!(
            found(&clients, &twice),
            Ok("a".into()),
            "one client found by two spellings is one client"
        );
        let other_number = update("99", "Adler, Eva", "", "x@turmhaus.example", &["2024/118"]);
        assert_eq!(found(&clients, &other_number), Ok("a".into()));
    }

    #[test]
    fn of_two_clients_of_one_name_the_one_with_the_creditor_is_meant() {
        let clients = [
            client("1", "Moritz", "Konrad", vec![entry("a", "Turmhaus", "x@turmhaus.example", "")]),
            client("2", "Konrad", "Moritz", vec![entry("b", "Seeblick", "y@seeblick.example", "")]),
        ];
        assert_eq!(
            found(&clients, &update("", "Konrad, Moritz", "", "x@turmhaus.example", &[])),
            Ok("a".into())
        );
        assert_eq!(found(&clients, &update("", "GROẞ, EVA", "", "x@turmhaus.example", &[])), Err("missing"));
    }

    #[test]
    fn what_a_person_has_named_is_taken_and_nothing_else() {
        let clients = [
            client(
                "1",
                "Adler",
                "Eva",
                vec![entry("a", "Turmhaus", "x@turmhaus.example", ""), entry("b", "Seeblick", "", "")],
            ),
            client("2", "Adler", "Eva", vec![entry("c", "Turmhaus", "x@turmhaus.example", "")]),
        ];
        let named = |client: Option<&str>, entry: Option<&str>| {
            let mut update = update("1", "Adler, Eva", "Turmhaus", "x@turmhaus.example", &[]);
            (update.client_id, update.entry_key) = (client.map(str::to_owned), entry.map(str::to_owned));
            found(&clients, &update)
        };
        assert_eq!(named(None, None), Ok("a".into()));
        assert_eq!(named(Some("2AdlerEva"), None), Ok("c".into()));
        assert_eq!(named(None, Some("b")), Ok("b".into()));
        assert_eq!(named(Some("2AdlerEva"), Some("c")), Ok("c".into()));
        assert!(named(Some("2AdlerEva"), Some("b")).unwrap_err().contains("no creditor entry of the key"));
        assert_eq!(named(Some("nobody"), None), Err("missing"));
    }

    #[test]
    fn the_best_rank_wins_and_a_tie_is_a_case_for_a_person() {
        let one = |entries: Vec<Entry>| [client("1", "A", "B", entries)];
        let address = one(vec![
            entry("a", "Turmhaus Nord", "nord@turmhaus.example", ""),
            entry("b", "Turmhaus Süd", "sued@turmhaus.example", ""),
        ]);
        let by = |creditor: &str, email: &str, numbers: &[&str]| update("1", "", creditor, email, numbers);
        assert_eq!(found(&address, &by("Turmhaus", "SUED@turmhaus.example", &[])), Ok("b".into()));
        assert!(
            found(&address, &by("Turmhaus", "x@turmhaus.example", &[]))
                .unwrap_err()
                .contains("several creditor")
        );
        assert_eq!(found(&address, &by("Turmhaus Nord GmbH", "x@turmhaus.example", &[])), Ok("a".into()));
        let same_lawyers = one(vec![
            entry("a", "Seeblick Autohaus", "k@lawyers.example", "11-1"),
            entry("b", "Waldrand Autohaus", "k@lawyers.example", "22-2"),
        ]);
        assert_eq!(
            found(&same_lawyers, &by("Waldrand Autohaus GmbH", "k@lawyers.example", &[])),
            Ok("b".into())
        );
        assert_eq!(found(&same_lawyers, &by("", "k@lawyers.example", &["11 - 1"])), Ok("a".into()));
        let freemail = one(vec![entry("a", "Hans Meier", "hans@gmx.example", "")]);
        assert!(found(&freemail, &by("Otto Weber", "otto@gmx.example", &[])).is_err());
        let mut twins = vec![
            entry("a", "Turmhaus", "x@turmhaus.example", ""),
            entry("b", "Turm", "y@turmhaus.example", ""),
        ];
        if let Some(twin) = twins.first_mut() {
            twin.addressable = false;
        }
        let unclear = found(&one(twins), &by("Turmhaus", "x@turmhaus.example", &[]));
        assert!(unclear.unwrap_err().contains("cannot be told"), "the worse fit must not win");
        let trade = one(vec![entry("a", "Bank Inkasso GmbH", "", "")]);
        assert!(
            found(&trade, &by("Inkasso Bank GmbH", "x@y.example", &[])).is_err(),
            "trade words prove nothing"
        );
    }

    proptest! {
        #[test]
        fn the_order_of_the_list_never_decides(names in prop::collection::vec("(Turm|See|Wald)(haus|blick) (Nord|Ost)", 1..6), creditor in "(Turm|See|Wald)(haus|blick) (Nord|Ost)") {
            let mut entries: Vec<Entry> = names.iter().enumerate().map(|(at, name)| entry(&at.to_string(), name, "", "")).collect();
            let wanted = update("1", "", &creditor, "x@y.example", &[]);
            let forward = found(&[client("1", "A", "B", entries.clone())], &wanted);
            entries.reverse();
            prop_assert_eq!(forward, found(&[client("1", "A", "B", entries)], &wanted));
        }

        #[test]
        fn no_text_makes_it_panic(number in "\\PC*", name in "\\PC*", creditor in "\\PC*", email in "\\PC*") {
            let clients = [client("1", "A", "B", vec![entry("a", "Turmhaus", "x@turmhaus.example", "")])];
            let _ = found(&clients, &update(&number, &name, &creditor, &email, &[&number]));
        }
    }
}
