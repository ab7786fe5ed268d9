//! What a mail says, as entities: the result of every extractor and the words for its intent.
//!
//! Owns the shape that is stored and sent on, and the choice among the extractors. An extractor reads one cleaned mail and answers with these fields; it never
//! decides whether the amount may be written, that is the write guard's, nor which client is meant, that is the matching's.

mod headers;
pub mod model;
pub mod rules;
pub mod usage;

use crate::{mail_text::MailText, outcome::Failure};
pub use headers::Headers;
use model::{Model, ModelConfig};
use serde::{Deserialize, Serialize};
use shared::money::Amount;
use std::{fmt, time::Duration};
use tokio::time::Instant;

/// One inbound mail as an extractor reads it.
#[derive(Clone, Copy)]
pub struct Mail<'a> {
    /// The subject as sent, prefixes such as `AW:` included.
    pub subject: &'a str,
    /// The sender's address.
    pub from_email: &'a str,
    /// The sender's display name, if the mail had one.
    pub from_name: Option<&'a str>,
    /// The cleaned body.
    pub text: &'a MailText,
    /// The headers, where the source gives them.
    pub headers: Headers<'a>,
}

/// What reads the mails.
#[derive(Debug, Clone)]
pub enum Extractor {
    /// [`rules`]: built in, needs no network.
    Rules,
    /// [`model`]: a language model behind a server.
    Model(Model),
}

/// Visible characters below which a mail's new text is not worth a model's time: the rules read it.
const WORTH_ASKING: usize = 20;

/// How long somebody at a terminal waits for a place among the calls.
const PLACE: Duration = Duration::from_secs(600);

impl Extractor {
    /// The rules, or the model of a configuration. Touches no network.
    ///
    /// # Errors
    /// What cannot be used and why.
    pub fn new(model: Option<&ModelConfig>) -> Result<Extractor, String> {
        model.map_or(Ok(Extractor::Rules), |config| Model::new(config.clone()).map(Extractor::Model))
    }

    /// Whether it may be asked now; sends nothing.
    ///
    /// # Errors
    /// A model's server has asked for a pause: sink down.
    pub fn pause(&self) -> Result<(), Failure> {
        match self {
            Extractor::Rules => Ok(()),
            Extractor::Model(model) => model.pause(),
        }
    }

    /// What it makes of one mail, for people: no budget is looked at and nothing is counted.
    ///
    /// # Errors
    /// The model's [`Failure`].
    pub async fn read(&self, mail: &Mail<'_>) -> Result<ExtractedEntities, Failure> {
        let Extractor::Model(model) = self else { return Ok(rules::extract(mail)) };
        if !is_worth_asking(mail) {
            return Ok(rules::extract(mail));
        }
        let turn = model.turn(Instant::now() + PLACE).await?;
        let reply = model.ask(mail, model.timeout()).await;
        drop(turn);
        model.check(&reply.answer?, mail)
    }
}

/// Whether a model is to be asked about a mail.
#[must_use]
pub fn is_worth_asking(mail: &Mail<'_>) -> bool {
    mail.text.current.chars().filter(|c| !c.is_whitespace()).nth(WORTH_ASKING - 1).is_some()
}

/// About how many tokens of a language model so many characters are.
#[must_use]
pub fn estimated_tokens(characters: usize) -> i32 {
    i32::try_from(characters.div_ceil(4)).unwrap_or(i32::MAX)
}

/// What the sender wants to say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Intent {
    /// States or attaches the claim.
    DebtStatement,
    /// Agrees to the plan or settlement.
    Acceptance,
    /// Refuses the plan or settlement.
    Rejection,
    /// Refuses, and names the lesser sum or quota that it would take instead.
    CounterOffer,
    /// Proposes or confirms instalments without giving anything up.
    PaymentPlan,
    /// Nothing is owed any more.
    Settled,
    /// Asks back, cannot assign the matter, or says nothing: a person must act.
    Question,
    /// An automatic receipt or an absence note.
    AutoReply,
    /// A delivery failure.
    Bounce,
    /// Advertising.
    Spam,
}

/// The entities of one mail. Everything but `intent` and `confidence` is empty when it is no creditor's reply.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct ExtractedEntities {
    /// Whether the creditor's side says something in the matter.
    pub is_creditor_reply: bool,
    /// What it says.
    pub intent: Intent,
    /// The client as `Nachname, Vorname`.
    pub client_name: Option<String>,
    /// The law firm's own case number, exactly as the mail writes it.
    pub client_aktenzeichen: Option<String>,
    /// Who holds the claim.
    pub creditor_name: Option<String>,
    /// The current total claim in euros; None when in doubt.
    pub debt_amount: Option<Amount>,
    /// The creditor's numbers for this matter, in order of appearance.
    pub reference_numbers: Vec<String>,
    /// How sure the extractor is, 0 to 1; below 0.75 a person decides.
    pub confidence: f64,
    /// One sentence of the mail, at most 300 characters, for the portal.
    pub summary: Option<String>,
}

/// Names and numbers are personal data: a `Debug` print only tells what was found.
impl fmt::Debug for ExtractedEntities {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("ExtractedEntities")
            .field("is_creditor_reply", &self.is_creditor_reply)
            .field("intent", &self.intent)
            .field("has_amount", &self.debt_amount.is_some())
            .field("confidence", &self.confidence)
            .finish_non_exhaustive()
    }
}
