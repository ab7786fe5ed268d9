//! The pages as HTML. Pure: what they show was read before. maud escapes every value.

use super::{history::Sample, plot::plot};
use crate::{
    board::LaneState,
    dead_letters::{Listing, Shown},
    explain::Explanation,
    review::{self, Held},
    status::{OperationStatus, Status},
};
use jiff::Timestamp;
use maud::{DOCTYPE, Markup, html};
use serde_json::Value;

const PAGES: [(&str, &str); 4] = [
    ("/", "Overview"),
    ("/dead-letters", "Dead letters"),
    ("/review", "Needs review"),
    ("/emails", "One mail"),
];

/// `is_live`: the script renews it.
fn page(title: &str, path: &str, is_live: bool, content: &Markup) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="robots" content="noindex";
                title { (title) " · relay" }
                link rel="stylesheet" href="/console.css";
                script src="/console.js" defer {}
            }
            body {
                header {
                    strong { "relay" }
                    nav {
                        @for (link, name) in PAGES {
                            a href=(link) aria-current=[(link == path).then_some("page")] { (name) }
                        }
                    }
                    form action="/emails" method="get" {
                        label { "Mail " input name="id" inputmode="numeric" pattern="[0-9]+" placeholder="its id" required; }
                    }
                }
                main data-live[is_live] {
                    h1 { (title) }
                    (content)
                }
            }
        }
    }
}

fn command(text: &str) -> Markup {
    html! { code { (text) } }
}

/// To the second, in UTC.
fn time(at: Timestamp) -> Markup {
    html! { time datetime=(at) { (format!("{}", at.strftime("%Y-%m-%d %H:%M:%S"))) } }
}

/// How long, for people.
fn duration(seconds: f64) -> String {
    match seconds {
        s if s < 1.0 => format!("{:.0} ms", s * 1000.0),
        s if s < 120.0 => format!("{s:.0} s"),
        s if s < 7200.0 => format!("{:.0} min", s / 60.0),
        s if s < 172_800.0 => format!("{:.1} h", s / 3600.0),
        s => format!("{:.1} days", s / 86_400.0),
    }
}

/// What waits, who works, what is in the way.
pub(super) fn overview(status: &Status, samples: &[Sample]) -> Markup {
    let content = html! {
        (attention(status))
        h2 { "Last hour" }
        div.plots {
            (plot("Waiting", "messages", samples, |sample| sample.waiting))
            (plot("Finished", "messages per minute", samples, |sample| sample.finished))
            (plot("Oldest due", "s", samples, |sample| sample.lag))
        }
        h2 { "Operations" }
        (operations(status))
        h2 { "Relays" }
        (relays(status))
        h2 { "Reconciliation" }
        (reconciliation(status))
        p.quiet { "As of " (time(status.at)) " UTC. The same in a terminal: " (command("relay status --watch")) }
    };
    page("Overview", "/", true, &content)
}

fn attention(status: &Status) -> Markup {
    html! {
        @if status.attention.is_empty() {
            ul.attention.fine { li.good { "All is well." } }
        } @else {
            ul.attention {
                @for one in &status.attention {
                    li {
                        (one.what)
                        @if let Some(text) = &one.command { " " (command(text)) }
                    }
                }
            }
        }
    }
}

fn operations(status: &Status) -> Markup {
    let row = |name: &str, operation: &OperationStatus| {
        let OperationStatus { backlog, last_minute, relays, paused } = operation;
        html! {
            tr {
                td { (name) }
                td.n { (backlog.waiting) @if backlog.at_least { "+" } }
                td.n { (backlog.due) }
                td.n { @if let Some(lag) = backlog.lag_seconds { (duration(lag)) } @else { "-" } }
                td.n { (backlog.held) }
                td.n { (backlog.retrying) }
                td.n { (backlog.parked) }
                td.n { @if backlog.dead > 0 { a.bad href="/dead-letters" { (backlog.dead) } } @else { "0" } }
                td.n { (last_minute.finished) }
                td.n { (relays) }
                td {
                    @if let Some(pause) = paused {
                        span.warn { "paused" } " by " (pause.actor) ": " (pause.reason) br;
                        (command(&format!("relay resume {name}")))
                    } @else {
                        (command(&format!("relay pause {name}")))
                    }
                }
            }
        }
    };
    html! {
        div.wide {
            table {
                tr {
                    th { "Operation" } th.n { "Waiting" } th.n { "Due" } th.n { "Oldest due" } th.n { "In hand" } th.n { "Retrying" }
                    th.n { "Parked" } th.n { "Dead" } th.n { "Finished/min" } th.n { "Relays" } th { "" }
                }
                @for (name, operation) in &status.operations { (row(name, operation)) }
            }
        }
    }
}

fn relays(status: &Status) -> Markup {
    let class = |state: LaneState| match state {
        LaneState::SinkDown => "bad",
        LaneState::Paused => "warn",
        LaneState::Working => "good",
        LaneState::Idle | LaneState::NotConfigured | LaneState::Unknown => "quiet",
    };
    html! {
        @if status.workers.is_empty() {
            p.bad { "None was seen in the last day. " (command("relay run")) }
        } @else {
            div.wide {
                table {
                    tr { th { "Relay" } th { "Version" } th { "" } th.n { "Up" } th { "Lanes" } }
                    @for worker in &status.workers {
                        tr {
                            td { (worker.worker) }
                            td { (worker.version) }
                            td {
                                @if worker.alive { span.good { "alive" } }
                                @else { span.bad { "not seen since " (time(worker.seen_at)) } }
                            }
                            td.n { (duration(worker.uptime_seconds)) }
                            td {
                                @for (name, lane) in worker.lanes.iter().filter(|(_, lane)| lane.state.is_served()) {
                                    div {
                                        (name) ": " span class=(class(lane.state)) { (lane.state.words()) }
                                        @if let Some(failure) = &lane.failure { ": " (failure) }
                                    }
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

fn reconciliation(status: &Status) -> Markup {
    let Some(run) = &status.last_reconciliation else {
        return html! { p.quiet { "None has run yet. " (command("relay reconcile")) } };
    };
    html! {
        p {
            (time(run.run_at)) " UTC, " (run.scope) ": "
            @if run.status == "completed" && run.mismatches_found == 0 { span.good { (run.status) } }
            @else { span.warn { (run.status) } }
            ", " (run.records_checked) " entries compared, " (run.mismatches_found) " differ, "
            (run.auto_repaired) " repairs enqueued, " (run.failed_repairs) " could not be. "
            @if let Some(error) = &run.error_message { span.bad { (error) } " " }
            (command("relay reconcile"))
        }
    }
}

/// Dead letters by what killed them.
pub(super) fn dead_letters(listing: &Listing) -> Markup {
    let content = html! {
        @if listing.groups.is_empty() {
            p.good { "There are none." }
        } @else {
            p {
                (listing.dead) " in " (listing.group_count) " groups"
                @if listing.pointless > 0 { ", " (listing.pointless) " of them pointless: something newer is stored" }
                @if listing.group_count > listing.groups.len() { "; the largest " (listing.groups.len()) " are shown" }
                "."
            }
            div.wide {
                table {
                    tr { th { "Group" } th.n { "Letters" } th { "First and last" } th { "Failure" } th { "Commands" } }
                    @for group in &listing.groups {
                        tr {
                            td { (group.group) br; span.quiet { (group.operation) } }
                            td.n {
                                (group.count)
                                @if group.pointless > 0 { br; span.quiet { (group.pointless) " pointless" } }
                            }
                            td { (time(group.first_dead_at)) br; (time(group.last_dead_at)) }
                            td { (group.error_class) ": " (group.error) br; a href=(format!("/dead-letters/{}", group.sample_id)) { "message " (group.sample_id) } }
                            td {
                                (command(&format!("relay dead-letters requeue --group {} --dry-run", group.group))) br;
                                (command(&format!("relay dead-letters discard --group {} --reason TEXT", group.group)))
                            }
                        }
                    }
                }
            }
        }
    };
    page("Dead letters", "/dead-letters", false, &content)
}

/// One of them.
pub(super) fn dead_letter(shown: &Shown) -> Markup {
    let message = &shown.message;
    let payload = serde_json::to_string_pretty(&message.payload).unwrap_or_default();
    let rows: [(&str, Option<String>); 9] = [
        ("Operation", Some(message.operation.clone())),
        ("State", Some(message.state.clone())),
        ("Group", shown.group.clone()),
        (
            "Failure",
            message
                .error_class
                .as_ref()
                .map(|class| format!("{class}: {}", message.error.as_deref().unwrap_or_default())),
        ),
        ("Attempts", Some(format!("{} of {} failed", message.retry_count, message.max_retries))),
        ("Created", Some(message.created_at.to_string())),
        ("Dead since", message.dead_at.map(|at| at.to_string())),
        ("Key", Some(message.idempotency_key.clone())),
        ("Trace", message.traceparent.clone()),
    ];
    let content = html! {
        @if message.pointless { p.warn { "Pointless: something newer of the same sender is stored." } }
        div.wide {
            table {
                @for (name, value) in rows {
                    @if let Some(value) = value { tr { th { (name) } td { (value) } } }
                }
                @if let Some(email) = message.email_id {
                    tr { th { "Mail" } td { a href=(format!("/emails/{email}")) { (email) } } }
                }
            }
        }
        p { (command(&format!("relay dead-letters requeue {}", message.message_id))) " "
            (command(&format!("relay dead-letters discard {} --reason TEXT", message.message_id))) }
        h2 { "Payload" }
        p.quiet { "What says something about a person is hidden: " (command(&format!("relay dead-letters show {} --payload", message.message_id))) }
        pre { code { (payload) } }
        @if !shown.actions.is_empty() {
            h2 { "What was done with it" }
            ol.way {
                @for act in &shown.actions { li { (time(act.at)) (act.action) " by " (act.actor) } }
            }
        }
    };
    page(&format!("Message {}", message.message_id), "/dead-letters", false, &content)
}

/// Mails that wait for a person.
pub(super) fn review(held: &[Held], most: usize) -> Markup {
    let text = |value: &Value, name: &str| value.get(name).and_then(Value::as_str).unwrap_or("-").to_owned();
    let content = html! {
        @if held.is_empty() {
            p.good { "None waits." }
        } @else {
            p {
                (held.len()) " wait, the oldest first"
                @if held.len() == most { "; more are shown by " (command("relay review list --limit 1000")) }
                "."
            }
            div.wide {
                table {
                    tr { th { "Mail" } th.n { "Stored" } th.n { "Mail says" } th { "Why" } th { "May be" } th { "Commands" } }
                    @for mail in held {
                        tr {
                            td { a href=(format!("/emails/{}", mail.email_id)) { (mail.email_id) } br; span.quiet { (mail.state) } }
                            td.n { (mail.old_amount.as_deref().unwrap_or("-")) }
                            td.n { (mail.new_amount.as_deref().unwrap_or("-")) }
                            td { (mail.reason) }
                            td {
                                @for (client, entry) in review::pairs(&mail.candidates).take(6) {
                                    div { (text(client, "aktenzeichen")) " / " (text(entry, "name")) " " span.quiet { (text(entry, "entry_key")) } }
                                }
                            }
                            td {
                                (command(&accept(mail))) br;
                                (command(&format!("relay review reject {}", mail.email_id)))
                            }
                        }
                    }
                }
            }
        }
    };
    page("Needs review", "/review", false, &content)
}

/// The command that writes it, with what it needs beyond yes.
fn accept(mail: &Held) -> String {
    let amount = if mail.new_amount.is_none() { " --amount AMOUNT" } else { "" };
    let creditor = if review::pairs(&mail.candidates).count() == 1 { "" } else { " --creditor KEY" };
    format!("relay review accept {}{amount}{creditor}", mail.email_id)
}

/// One mail's way as a time line.
pub(super) fn mail(explanation: &Explanation) -> Markup {
    let errors = [&explanation.processing_error, &explanation.sync_error];
    let content = html! {
        p { strong { (explanation.status()) } }
        @for error in errors.into_iter().flatten() { p.bad { (error) } }
        ol.way {
            @for event in explanation.events() {
                li class=[event.is_bad.then_some("bad")] {
                    @if let Some(at) = event.at { (time(at)) } @else { time { "now" } }
                    (event.words)
                }
            }
        }
        @for row in &explanation.ledger { p { (row) } }
        p {
            (command(&format!("relay explain {}", explanation.email_id))) " "
            (command(&format!("relay correct {} --amount AMOUNT", explanation.email_id))) " "
            (command(&format!("relay replay --email {}", explanation.email_id)))
        }
    };
    page(&format!("Mail {}", explanation.email_id), "/emails", true, &content)
}

/// Asks for one.
pub(super) fn find_mail() -> Markup {
    let content =
        html! { p { "Give its id above; the answer to its webhook names it (" code { "email_id" } ")." } };
    page("One mail", "/emails", false, &content)
}

/// Nothing of this name.
pub(super) fn unknown(words: &str) -> Markup {
    page("Not found", "", false, &html! { p { (words) } })
}

/// Nothing can be read.
pub(super) fn trouble(words: &str) -> Markup {
    page(
        "No answer from Postgres",
        "",
        true,
        &html! { p.bad { (words) } p { "The page tries again by itself." } },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_have_written_is_text_and_never_markup() {
        let page = unknown("<script>alert(1)</script> & \"x\"").0;
        assert!(
            page.contains("&lt;script&gt;alert(1)&lt;/script&gt; &amp;") && !page.contains("<script>alert"),
            "{page}"
        );
    }

    #[test]
    fn durations_are_told_in_the_unit_that_fits() {
        let told = [0.25, 42.0, 600.0, 10_000.0, 400_000.0].map(duration);
        assert_eq!(told, ["250 ms", "42 s", "10 min", "2.8 h", "4.6 days"]);
    }
}
