//! The clients and creditors of a run: entry n is creditor n mod 5 of client n div 5.

use mongodb::bson::{Document, doc};

/// Entries of one client.
pub const CREDITORS: usize = 5;
const FIRST_NAMES: [&str; 6] = ["Eva", "Marlon", "Hedwig", "Jürgen", "Ines", "Korbinian"];
const SYLLABLES: [&str; 10] =
    ["Adl", "Bern", "Dorn", "Eich", "Falk", "Grün", "Holm", "Kirch", "Lind", "Moos"];
const HOUSES: [&str; CREDITORS] =
    ["Turmhaus Kontor", "Seeblick Wohnen", "Quarkstein Handel", "Windrad Energie", "Kellerberg Lager"];

/// What stands in mails and documents, and must not stand in a log.
pub const WORDS: [&str; 9] = [
    "Turmhaus",
    "Seeblick",
    "Quarkstein",
    "Windrad",
    "Kellerberg",
    "forderung@",
    "Sehr geehrte",
    "nicht im Hause",
    "Restforderung",
];

/// What an entry claims at first, which nobody may change. It has no other amount before the first update.
pub const CLAIM: f64 = 95.5;

/// By its number.
#[derive(Debug, Clone, Copy)]
pub struct Client(usize);

/// By its number.
#[derive(Debug, Clone, Copy)]
pub struct Creditor(usize);

/// Whose an entry is, and with whom.
#[must_use]
pub fn of(entry: usize) -> (Client, Creditor) {
    (Client(entry / CREDITORS), Creditor(entry % CREDITORS))
}

/// The document of a client.
#[must_use]
pub fn document(client: usize) -> Document {
    let entries: Vec<Document> = (0..CREDITORS).map(|creditor| Creditor(creditor).entry(client)).collect();
    let client = Client(client);
    doc! {
        "aktenzeichen": client.number().replace('/', "_"), "firstName": client.first_name(), "lastName": client.last_name(),
        "current_status": "waiting_for_creditors", "final_creditor_list": entries,
    }
}

/// The `id` of an entry in its client's list.
#[must_use]
pub fn entry_id(entry: usize) -> String {
    format!("cr_{entry}")
}

impl Client {
    /// The firm's case number, as mails write it.
    #[must_use]
    pub fn number(self) -> String {
        format!("{}/26", 10_000 + self.0)
    }

    fn first_name(self) -> &'static str {
        FIRST_NAMES.get(self.0 % FIRST_NAMES.len()).copied().unwrap_or_default()
    }

    fn last_name(self) -> String {
        let syllable = |digit: usize| SYLLABLES.get(digit % SYLLABLES.len()).copied().unwrap_or_default();
        let tail = [self.0 / 100, self.0 / 10].map(syllable).concat().to_lowercase();
        format!("{}{tail}er", syllable(self.0))
    }

    /// `Vorname Nachname`.
    #[must_use]
    pub fn full_name(self) -> String {
        format!("{} {}", self.first_name(), self.last_name())
    }

    /// `Nachname, Vorname`.
    #[must_use]
    pub fn name(self) -> String {
        format!("{}, {}", self.last_name(), self.first_name())
    }
}

impl Creditor {
    /// Of the firm.
    #[must_use]
    pub fn name(self) -> String {
        format!("{} GmbH", HOUSES.get(self.0).copied().unwrap_or_default())
    }

    /// Where its mails come from.
    #[must_use]
    pub fn email(self) -> String {
        let domain = self.name().to_lowercase().replace(" gmbh", "").replace(' ', "-");
        format!("forderung@{domain}.example")
    }

    fn entry(self, client: usize) -> Document {
        doc! {
            "id": entry_id(client * CREDITORS + self.0), "sender_name": self.name(), "sender_email": self.email(),
            "glaeubiger_name": self.name(), "reference_number": null, "claim_amount": CLAIM, "contact_status": "email_sent",
        }
    }
}
