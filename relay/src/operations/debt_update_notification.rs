//! Tells the firm by mail that an amount has been written. Changes nothing about the mail that it tells of.

use super::delivery::{Post, deliver};
use crate::{
    context::Context,
    ledger, letters,
    outbox::{Claim, Finished},
    outcome::Failure,
};
use shared::message::{DebtUpdateNotification, EmailId};
use shared::postgres::Connection;
use std::collections::HashMap;
use tokio::time::Instant;

pub(super) async fn apply(context: &Context, claims: Vec<Claim>, deadline: Instant) -> Vec<Finished> {
    let Some(mailer) = &context.mailer else { return claims.into_iter().map(Claim::give_back).collect() };
    let (mut finished, mut readable) = (Vec::new(), Vec::new());
    for claim in claims {
        match claim.payload::<DebtUpdateNotification>() {
            Ok(update) => readable.push((claim, update)),
            Err(failure) => finished.push(claim.failed(failure, 0)),
        }
    }
    let ids: Vec<EmailId> = readable.iter().map(|(_, update)| update.email_id).collect();
    let tickets = match tickets(context, &ids, deadline).await {
        Ok(tickets) => tickets,
        Err(failure) => {
            finished.extend(readable.into_iter().map(|(claim, _)| claim.failed(failure.clone(), 0)));
            return finished;
        }
    };
    let post = |(claim, update): (Claim, DebtUpdateNotification)| {
        let letter = letters::debt_update(&update, tickets.get(&update.email_id).map(String::as_str));
        Post { claim, letter, key: update.key() }
    };
    finished.extend(deliver(mailer, readable.into_iter().map(post).collect(), deadline).await);
    finished
}

async fn tickets(
    context: &Context,
    ids: &[EmailId],
    deadline: Instant,
) -> Result<HashMap<EmailId, String>, Failure> {
    let look = async |connection: &mut Connection| {
        ledger::tickets(connection, ids).await.map_err(|error| ledger::unreadable(&error))
    };
    context.ask(deadline, "no reply to a look at the mails", look).await
}
