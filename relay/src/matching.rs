//! Which client and which creditor entry a debt update belongs to. Pure; ambiguous is never guessed.
//!
//! Client: by Aktenzeichen, else by exact name in every order. Entry: by exact address, else by domain (no freemail), else by
//! significant name words; what stays tied is narrowed by the creditor's reference number and by its name, and if two are still
//! left a person decides. Comparison is by equality of folded texts: no value ever reaches a regular expression.

use crate::client::{Client, Entry};
use shared::message::CreditorDebtUpdate;
use std::collections::BTreeSet;
use unicode_normalization::UnicodeNormalization as _;

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

/// How much the match rests on, 0 to 1; shown to people, decides nothing.
pub type Confidence = f64;

/// What the update's client may be called in MongoDB.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ClientKeys {
    /// Spellings of the mail's own case number (`/` and `_` are the same).
    pub aktenzeichen: Vec<String>,
    /// Spellings of the other numbers in the mail, tried when the first exists nowhere.
    pub other_numbers: Vec<String>,
    /// (last name, first name) in every order that the text allows.
    pub names: Vec<(String, String)>,
}

/// The keys to look for.
#[must_use]
pub fn client_keys(update: &CreditorDebtUpdate) -> ClientKeys {
    let aktenzeichen = update.client_aktenzeichen.as_deref().map(spellings).unwrap_or_default();
    let other_numbers = update.reference_numbers.iter().flat_map(|number| spellings(number)).collect();
    let names = update.client_name.as_deref().map(name_orders).unwrap_or_default();
    ClientKeys { aktenzeichen, other_numbers, names }
}

impl ClientKeys {
    /// Whether nothing identifies the client.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.aktenzeichen.is_empty() && self.names.is_empty()
    }

    /// Those of `clients` that the update may mean: by number, else by name.
    #[must_use]
    pub fn select<'a>(&self, clients: impl Iterator<Item = &'a Client> + Clone) -> Vec<&'a Client> {
        let numbered = |numbers: &[String]| -> Vec<&'a Client> {
            let has = |client: &&Client| {
                client.aktenzeichen.as_ref().is_some_and(|number| numbers.contains(number))
            };
            clients.clone().filter(has).collect()
        };
        let by_number = numbered(&self.aktenzeichen);
        if !by_number.is_empty() {
            return by_number;
        }
        // A creditor's own number may look like a case number of ours, so here a known name has to agree.
        let numbered_otherwise = numbered(&self.other_numbers).into_iter();
        let by_other: Vec<_> =
            numbered_otherwise.filter(|client| self.names.is_empty() || self.has_name_of(client)).collect();
        if !by_other.is_empty() {
            return by_other;
        }
        clients.filter(|client| self.has_name_of(client)).collect()
    }

    /// Clients that one of the mail's other numbers names, but under another name than the mail's: for a person to look at.
    #[must_use]
    pub fn otherwise_named<'a>(&self, clients: impl Iterator<Item = &'a Client>) -> Vec<&'a Client> {
        let numbered = |client: &&Client| {
            client.aktenzeichen.as_ref().is_some_and(|number| self.other_numbers.contains(number))
        };
        clients.filter(numbered).filter(|client| !self.has_name_of(client)).collect()
    }

    fn has_name_of(&self, client: &Client) -> bool {
        let (last, first) = (fold(&client.last_name), fold(&client.first_name));
        !last.is_empty() && self.names.iter().any(|(l, f)| fold(l) == last && fold(f) == first)
    }
}

/// Finds the one entry among the clients that [`ClientKeys::select`] left.
#[must_use]
pub fn find_entry<'a>(clients: &[&'a Client], update: &CreditorDebtUpdate) -> Match<'a> {
    let pairs: Vec<Pair<'a>> =
        clients.iter().flat_map(|client| client.entries.iter().map(|entry| Pair { client, entry })).collect();
    if clients.is_empty() {
        return Match::ClientMissing;
    }
    let creditor = Creditor::of(update);
    let ranked: [(Confidence, Vec<Pair<'a>>); 3] = [
        (1.0, creditor.by_address(&pairs)),
        (0.9, creditor.by_domain(&pairs)),
        (0.8, best_by(&pairs, |pair| creditor.name_score(pair.entry))),
    ];
    let Some((confidence, best)) = ranked.into_iter().find(|(_, found)| !found.is_empty()) else {
        return Match::Unclear("no creditor of the client fits the mail");
    };
    let by_number = best_by(&best, |pair| u32::from(creditor.has_number_of(pair.entry)));
    let narrowed = if by_number.is_empty() { best } else { by_number };
    let by_name = best_by(&narrowed, |pair| creditor.name_score(pair.entry));
    let narrowed = if by_name.is_empty() { narrowed } else { by_name };
    match narrowed.as_slice() {
        [only] if only.entry.addressable => Match::Entry(only.client, only.entry, confidence),
        [_] => Match::Unclear("the creditor's entry cannot be told from another one"),
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

/// All with the highest score above zero.
fn best_by<'a>(pairs: &[Pair<'a>], score: impl Fn(&Pair<'a>) -> u32) -> Vec<Pair<'a>> {
    let best = pairs.iter().map(&score).max().unwrap_or(0);
    if best == 0 { Vec::new() } else { pairs.iter().filter(|pair| score(pair) == best).copied().collect() }
}

/// The mail's side, folded once.
struct Creditor {
    address: String,
    name: String,
    words: BTreeSet<String>,
    numbers: BTreeSet<String>,
}

impl Creditor {
    fn of(update: &CreditorDebtUpdate) -> Creditor {
        // Without a name the address stands in for it.
        let name = update.creditor_name.as_deref().unwrap_or(&update.creditor_email);
        Creditor {
            address: fold(&update.creditor_email),
            name: fold(name),
            words: significant_words(name),
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
            let shared = significant_words(name).intersection(&self.words).count();
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

/// Equal for what German collation of strength 2 holds equal: case and ß/ss do not matter, umlauts do.
fn fold(text: &str) -> String {
    let lower = text.nfc().collect::<String>().to_lowercase().replace('ß', "ss");
    lower.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// A number without the blanks and marks that people put into it.
fn bare_number(number: &str) -> String {
    fold(number).chars().filter(|character| character.is_alphanumeric()).collect()
}

fn spellings(number: &str) -> Vec<String> {
    let number = number.trim();
    if number.is_empty() {
        return Vec::new();
    }
    BTreeSet::from([number.to_owned(), number.replace('/', "_"), number.replace('_', "/")])
        .into_iter()
        .collect()
}

/// `Nachname, Vorname` first as written, then the other way round; without a comma every split in both orders.
fn name_orders(name: &str) -> Vec<(String, String)> {
    let clean = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    if let Some((last, first)) = name.split_once(',') {
        let (last, first) = (clean(last), clean(first));
        return vec![(last.clone(), first.clone()), (first, last)];
    }
    let words: Vec<&str> = name.split_whitespace().take(8).collect(); // nobody has more; the query stays bounded
    let mut orders = Vec::new();
    for at in 1..words.len() {
        let (front, back) = words.split_at(at);
        orders.push((back.join(" "), front.join(" ")));
        orders.push((front.join(" "), back.join(" ")));
    }
    orders
}

fn domain(address: &str) -> Option<&str> {
    address.rsplit_once('@').map(|(_, domain)| domain).filter(|domain| domain.contains('.'))
}

/// Providers at whom anybody has an address. The name before the last dot counts, whatever the top-level domain.
const PROVIDERS: &str = "gmail googlemail hotmail outlook live msn yahoo ymail gmx web t-online freenet posteo mail \
    email mailbox aol icloud me mac proton protonmail tutanota tuta arcor vodafone 1und1 online \
    kabelmail magenta";

fn is_freemail(domain: &str) -> bool {
    let host = domain.rsplit_once('.').map_or(domain, |(host, _)| host);
    let host = host.strip_suffix(".co").unwrap_or(host);
    PROVIDERS.split(' ').any(|provider| provider == host)
}

/// Legal forms, trades and titles: alone they prove nothing.
const COMMON: &str = "gmbh mbh ohg limited gesellschaft aktiengesellschaft genossenschaft verein stiftung gruppe \
    holding group company deutschland deutsche deutscher deutsches germany bank sparkasse \
    volksbank raiffeisenbank inkasso incasso collection collections forderungsmanagement \
    forderungen forderung forderungskauf versicherung versicherungen versand handel vertrieb \
    service services dienst dienste kundenservice rechtsanwalt rechtsanwälte rechtsanwaelte \
    rechtsanwältin anwalt anwälte kanzlei kollegen partner partnerschaft stadt gemeinde \
    landkreis kreis finanz finance telekom mobilfunk energie credit kredit info";

/// Words longer than three letters that tell one firm from another.
fn significant_words(name: &str) -> BTreeSet<String> {
    fold(name)
        .split(|character: char| !character.is_alphanumeric())
        .filter(|word| word.chars().count() > 3 && !COMMON.split(' ').any(|common| common == *word))
        .map(str::to_owned)
        .collect()
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
        }
    }

    fn found(clients: &[Client], update: &CreditorDebtUpdate) -> Result<String, &'static str> {
        match find_entry(&client_keys(update).select(clients.iter()), update) {
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
