//! A status as people read it: what needs attention first, then aligned columns. Pure, but for the look at the terminal.

use crate::{
    board::LaneState,
    status::{OperationStatus, Reconciliation, Status},
    workers::Worker,
};
use jiff::Timestamp;
use std::{fmt::Write as _, io::IsTerminal as _};

/// Whether to colour.
#[derive(Debug, Clone, Copy)]
pub(super) struct Style {
    colour: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Tone {
    Plain,
    /// Nothing to see.
    Faint,
    Strong,
    Good,
    Warning,
    Alarm,
}

impl Style {
    /// Colour only on a terminal, and only where NO_COLOR is not set.
    pub(super) fn of_this_terminal() -> Style {
        let is_unwanted = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Style { colour: std::io::stdout().is_terminal() && !is_unwanted }
    }

    pub(super) fn alarm(self, text: &str) -> String {
        self.tone(text, Tone::Alarm)
    }

    fn tone(self, text: &str, tone: Tone) -> String {
        let code = match tone {
            Tone::Plain => return text.to_owned(),
            _ if text.is_empty() => return String::new(),
            Tone::Faint => "2",
            Tone::Strong => "1",
            Tone::Good => "32",
            Tone::Warning => "33",
            Tone::Alarm => "1;31",
        };
        if self.colour { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

/// One cell of a table.
struct Cell {
    text: String,
    tone: Tone,
}

fn cell(text: impl Into<String>, tone: Tone) -> Cell {
    Cell { text: text.into(), tone }
}

/// Rows in columns as wide as their longest cell; the first `left` columns and the last are aligned to the left, numbers to the right.
fn table(rows: &[Vec<Cell>], left: usize, style: Style) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let length = |cell: &Cell| cell.text.chars().count();
    let width = |column: usize| rows.iter().filter_map(|row| row.get(column)).map(length).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (column, (cell, width)) in row.iter().zip(&widths).enumerate() {
            let padding = if column + 1 == columns { 0 } else { width.saturating_sub(length(cell)) };
            let padding = " ".repeat(padding);
            let shown = style.tone(&cell.text, cell.tone);
            let is_left = column < left || column + 1 == columns;
            let gap = if column == 0 { "" } else { "  " };
            let _ = if is_left {
                write!(line, "{gap}{shown}{padding}")
            } else {
                write!(line, "{gap}{padding}{shown}")
            };
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// The whole screen.
pub(super) fn draw(status: &Status, style: Style) -> String {
    let heading = |text: &str| style.tone(text, Tone::Strong);
    let mut text = format!("{}  {:.0}\n\n", heading("relay status"), status.at);
    if status.attention.is_empty() {
        let _ = writeln!(text, "{}", style.tone("all is well", Tone::Good));
    }
    for attention in &status.attention {
        let command = attention.command.as_ref().map(|command| format!("  -> {command}")).unwrap_or_default();
        let _ =
            writeln!(text, "{} {}{}", style.alarm("!"), attention.what, style.tone(&command, Tone::Faint));
    }
    let _ = write!(text, "\n{}", operations(status, style));
    let _ = write!(text, "\n{}", workers(status, style));
    text.push('\n');
    for holder in &status.hurts_vacuum {
        let age = holder.seconds.map(|seconds| format!(" for {}", duration(seconds))).unwrap_or_default();
        let line = format!("hurts vacuum: {} {}{age}", holder.kind, holder.name);
        let _ = writeln!(text, "{}", style.tone(&line, Tone::Warning));
    }
    let _ = writeln!(text, "{}", reconciliation(status.last_reconciliation.as_ref(), status.at));
    text
}

fn operations(status: &Status, style: Style) -> String {
    let titles = [
        "OPERATION",
        "WAITING",
        "DUE",
        "HELD",
        "PARKED",
        "RETRYING",
        "DEAD",
        "LAG",
        "DONE/MIN",
        "FAILED/MIN",
        "RELAYS",
        "",
    ];
    let mut rows = vec![titles.map(|title| cell(title, Tone::Faint)).into_iter().collect()];
    rows.extend(status.operations.iter().map(|(name, operation)| operation_row(name, operation)));
    table(&rows, 1, style)
}

fn operation_row(name: &str, operation: &OperationStatus) -> Vec<Cell> {
    let OperationStatus { backlog, last_minute, relays, paused } = operation;
    let more = if backlog.at_least { ">=" } else { "" };
    let count = |number: i64, more: &str, tone: Tone| match number {
        0 if more.is_empty() => cell("0", Tone::Faint),
        number => cell(format!("{more}{}", grouped(number.unsigned_abs())), tone),
    };
    let rate = |number: u64, tone: Tone| match number {
        0 => cell("0", Tone::Faint),
        number => cell(grouped(number), tone),
    };
    let lag = match backlog.lag_seconds {
        None => cell("-", Tone::Faint),
        Some(seconds) if seconds > 60.0 => cell(duration(seconds), Tone::Alarm),
        Some(seconds) => cell(duration(seconds), Tone::Plain),
    };
    let relays = match relays {
        0 if backlog.waiting > 0 => cell("none", Tone::Alarm),
        0 => cell("none", Tone::Faint),
        relays => cell(relays.to_string(), Tone::Plain),
    };
    let paused =
        paused.as_ref().map(|pause| format!("PAUSED by {} since {:.0}", pause.actor, pause.paused_at));
    vec![
        cell(name, Tone::Strong),
        count(backlog.waiting, more, Tone::Plain),
        count(backlog.due, more, Tone::Plain),
        count(backlog.held, more, Tone::Plain),
        count(backlog.parked, "", Tone::Plain),
        count(backlog.retrying, "", Tone::Warning),
        count(backlog.dead, "", Tone::Alarm),
        lag,
        rate(last_minute.finished, Tone::Good),
        rate(last_minute.retried + last_minute.dead, Tone::Warning),
        relays,
        cell(paused.unwrap_or_default(), Tone::Warning),
    ]
}

fn workers(status: &Status, style: Style) -> String {
    if status.workers.is_empty() {
        return style.alarm("no relay has been there during the last day") + "\n";
    }
    let titles = ["RELAY", "HOST", "VERSION", "UP", "SEEN", "LANES"];
    let mut rows: Vec<Vec<Cell>> = vec![titles.map(|title| cell(title, Tone::Faint)).into_iter().collect()];
    for worker in &status.workers {
        worker_rows(worker, status.at, &mut rows);
    }
    table(&rows, 3, style)
}

/// One line per state that the relay's lanes are in; a lane whose sink is down has a line of its own.
fn worker_rows(worker: &Worker, at: Timestamp, rows: &mut Vec<Vec<Cell>>) {
    let mut lanes: Vec<Cell> = Vec::new();
    for state in
        [LaneState::Working, LaneState::Idle, LaneState::Paused, LaneState::NotConfigured, LaneState::Unknown]
    {
        // Operations of newer relays stand under a name that is none.
        let of_state = worker.lanes.iter().filter(|(name, lane)| lane.state == state && name.as_str() != "*");
        let names: Vec<&str> = of_state.map(|(name, _)| name.as_str()).collect();
        if !names.is_empty() {
            lanes.push(cell(format!("{}: {}", state.words(), names.join(", ")), tone(state)));
        }
    }
    for (name, lane) in worker.lanes.iter().filter(|(_, lane)| lane.state == LaneState::SinkDown) {
        let failure = lane.failure.as_deref().unwrap_or_default();
        let since = duration(seconds_between(lane.since, at));
        lanes.insert(
            0,
            cell(format!("{} for {since}: {name}: {failure}", lane.state.words()), tone(lane.state)),
        );
    }
    let seen = format!("{} ago", duration(seconds_between(worker.seen_at, at)));
    if !worker.alive {
        lanes = vec![cell("gone without a word", Tone::Alarm)];
    }
    let mut lanes = lanes.into_iter();
    let first = lanes.next().unwrap_or_else(|| cell("", Tone::Plain));
    let name_tone = if worker.alive { Tone::Strong } else { Tone::Alarm };
    rows.push(vec![
        cell(worker.worker.as_str(), name_tone),
        cell(worker.host.as_str(), Tone::Plain),
        cell(worker.version.as_str(), Tone::Plain),
        cell(duration(worker.uptime_seconds), Tone::Plain),
        cell(seen, if worker.alive { Tone::Plain } else { Tone::Alarm }),
        first,
    ]);
    let blank = || ["", "", "", "", ""].map(|text| cell(text, Tone::Plain)).into_iter();
    rows.extend(lanes.map(|lane| blank().chain([lane]).collect()));
}

fn tone(state: LaneState) -> Tone {
    match state {
        LaneState::Working => Tone::Good,
        LaneState::Idle => Tone::Plain,
        LaneState::Paused => Tone::Warning,
        LaneState::SinkDown => Tone::Alarm,
        LaneState::NotConfigured | LaneState::Unknown => Tone::Faint,
    }
}

fn reconciliation(run: Option<&Reconciliation>, at: Timestamp) -> String {
    let Some(run) = run else { return "reconciliation: none has run yet".into() };
    let count = |number: i32| grouped(u64::from(number.unsigned_abs()));
    format!(
        "reconciliation: {} {} ago ({}): {} checked, {} different, {} repairs enqueued, {} failed{}",
        run.status,
        duration(seconds_between(run.completed_at.unwrap_or(run.run_at), at)),
        run.scope,
        count(run.records_checked),
        count(run.mismatches_found),
        count(run.auto_repaired),
        count(run.failed_repairs),
        run.error_message.as_ref().map(|text| format!(": {text}")).unwrap_or_default(),
    )
}

fn seconds_between(from: Timestamp, to: Timestamp) -> f64 {
    to.duration_since(from).as_secs_f64().max(0.0)
}

/// 1234567 as 1,234,567.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// The two largest units.
fn duration(seconds: f64) -> String {
    if seconds < 10.0 {
        return format!("{seconds:.1} s");
    }
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "for people; never negative")]
    let seconds = seconds as u64;
    match (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60, seconds % 60) {
        (0, 0, 0, seconds) => format!("{seconds} s"),
        (0, 0, minutes, seconds) => format!("{minutes} min {seconds} s"),
        (0, hours, minutes, _) => format!("{hours} h {minutes} min"),
        (days, hours, _, _) => format!("{days} d {hours} h"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_durations_are_for_people() {
        assert_eq!([0, 12, 123, 1234, 1_234_567].map(grouped), ["0", "12", "123", "1,234", "1,234,567"]);
        let texts = [0.04, 9.94, 59.0, 61.0, 3700.0, 90_000.0].map(duration);
        assert_eq!(texts, ["0.0 s", "9.9 s", "59 s", "1 min 1 s", "1 h 1 min", "1 d 1 h"]);
    }

    #[test]
    fn columns_are_as_wide_as_their_longest_cell_whatever_their_colour() {
        let rows = |tone| {
            vec![
                vec![cell("a", tone), cell("1,000", tone), cell("x", tone)],
                vec![cell("long", tone), cell("2", tone), cell("last", tone)],
            ]
        };
        let plain = table(&rows(Tone::Alarm), 1, Style { colour: false });
        assert_eq!(plain, "a     1,000  x\nlong      2  last\n");
        let coloured = table(&rows(Tone::Alarm), 1, Style { colour: true });
        assert_eq!(
            coloured.replace("\x1b[1;31m", "").replace("\x1b[0m", ""),
            "a     1,000  x\nlong      2  last\n"
        );
    }
}
