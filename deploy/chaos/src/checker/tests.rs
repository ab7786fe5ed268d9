//! The checker finds what it is there for: a world in order, and one planted fault each.

use super::*;

const ENTRIES: usize = 20;

fn carried(delivery: Delivery, email_id: EmailId, outcome: &str) -> Vec<Message> {
    let message = |operation: &str, outcome: &str| Message {
        email_id,
        operation: operation.into(),
        outcome: Some(outcome.into()),
        dead: None,
        retry_count: 0,
        decisions: i64::from(operation == "creditor_debt_update"),
    };
    match delivery.kind {
        Kind::Mail => {
            vec![message("email_extraction", "extracted"), message("creditor_debt_update", outcome)]
        }
        Kind::Update => vec![message("creditor_debt_update", outcome)],
        Kind::Unsure => vec![message("creditor_debt_update", "held_for_review")],
        Kind::Absence => vec![message("email_extraction", "not_creditor_reply")],
    }
}

/// 300 deliveries, each stored, carried out in order, and answered twice.
fn in_order() -> Evidence {
    let mut evidence = Evidence::default();
    let mut entries: BTreeMap<usize, Held> = BTreeMap::new();
    for number in 0..300 {
        let delivery = Delivery::new(1, number, ENTRIES);
        let id = 1000 + i64::try_from(number).unwrap();
        evidence.sent.push(Sent { delivery, answers: vec![(false, id), (true, id)] });
        let shows = match delivery.kind {
            Kind::Mail | Kind::Update => "completed/auto_matched/synced",
            Kind::Unsure => "completed/needs_review/not_applicable",
            Kind::Absence => "not_creditor_reply/-/not_applicable",
        };
        evidence.mails.push(Mail {
            id,
            webhook_id: delivery.id(),
            shows: shows.into(),
            digest: digest(&delivery),
        });
        evidence.messages.extend(carried(delivery, id, "applied"));
        if delivery.is_written() {
            let held = held(&delivery, id);
            evidence.history.push(held);
            entries.insert(delivery.entry, held);
        }
    }
    evidence.ledger = entries.values().copied().collect();
    evidence.entries = evidence.ledger.iter().map(|held| (*held, tells(held, &evidence.sent))).collect();
    evidence
}

/// As an entry must be that holds this; mail 1000 is the first that was sent.
fn tells(held: &Held, sent: &[Sent]) -> Told {
    let delivery = sent[usize::try_from(held.email_id - 1000).unwrap()].delivery;
    let text = match delivery.kind {
        Kind::Mail => {
            let body: serde_json::Value = serde_json::from_str(&delivery.body(false)).unwrap();
            body["body_text"].as_str().unwrap().to_owned()
        }
        Kind::Update | Kind::Unsure | Kind::Absence => "Die Restforderung ist genannt.".into(),
    };
    Told { fields: delivery.fields(), text }
}

/// What is found once this has been done to a world in order.
fn found(plant: impl FnOnce(&mut Evidence)) -> Vec<Breach> {
    let mut evidence = in_order();
    plant(&mut evidence);
    let mut breaches: Vec<Breach> = check(&evidence).into_iter().map(|(breach, _)| breach).collect();
    breaches.sort_unstable();
    breaches.dedup();
    breaches
}

/// The last one of a kind, which is the newest of its entry or not.
fn last(evidence: &Evidence, kind: Kind) -> usize {
    evidence.sent.iter().rposition(|sent| sent.delivery.kind == kind).unwrap()
}

#[test]
fn a_world_in_order_has_no_breach_and_all_kinds_occur() {
    let evidence = in_order();
    assert_eq!(check(&evidence), []);
    for kind in [Kind::Mail, Kind::Update, Kind::Unsure, Kind::Absence] {
        assert!(evidence.sent.iter().any(|sent| sent.delivery.kind == kind), "{kind:?}");
    }
}

#[test]
fn a_mail_that_was_answered_and_is_not_stored_is_lost() {
    let lost = found(|evidence| {
        let mail = evidence.mails.remove(last(evidence, Kind::Absence));
        evidence.messages.retain(|message| message.email_id != mail.id);
    });
    assert_eq!(lost, [Breach::Lost]);
}

#[test]
fn a_delivery_that_is_stored_or_accepted_twice_is_found() {
    let stored = found(|evidence| {
        let mut again = evidence.mails[last(evidence, Kind::Absence)].clone();
        again.id = 9999;
        evidence.messages.extend(carried(evidence.sent[last(evidence, Kind::Absence)].delivery, 9999, ""));
        evidence.mails.push(again);
    });
    assert_eq!(stored, [Breach::Twice]);
    assert_eq!(found(|evidence| evidence.sent[7].answers.push((false, 1007))), [Breach::Twice]);
}

#[test]
fn an_answer_about_another_mail_another_body_and_a_mail_that_nobody_sent_are_wrong() {
    assert_eq!(found(|evidence| evidence.sent[7].answers.push((true, 1008))), [Breach::Wrong]);
    let orphan = |evidence: &mut Evidence| {
        let message = Message { email_id: 9999, ..evidence.messages[0].clone() };
        evidence.messages.push(Message { outcome: Some("superseded".into()), ..message });
    };
    assert_eq!(found(orphan), [Breach::Wrong]);
    let content = digest(&Delivery::new(1, 8, ENTRIES));
    assert_eq!(found(|evidence| evidence.mails[7].digest = content), [Breach::Wrong]);
    let invented = Mail { id: 9999, webhook_id: "other".into(), shows: String::new(), digest: Vec::new() };
    assert_eq!(found(|evidence| evidence.mails.push(invented)), [Breach::Wrong]);
}

#[test]
fn a_delivery_without_a_200_is_unanswered() {
    assert_eq!(found(|evidence| evidence.sent[7].answers.clear()), [Breach::Unanswered]);
}

#[test]
fn a_message_that_is_missing_doubled_dead_or_waiting_is_found() {
    assert_eq!(found(|evidence| drop(evidence.messages.pop())), [Breach::Lost]);
    assert_eq!(found(|evidence| evidence.messages.push(evidence.messages[0].clone())), [Breach::Twice]);
    let dead = |message: &mut Message| {
        message.outcome = None;
        message.dead = Some("crashed_worker".into());
    };
    assert_eq!(found(|evidence| dead(&mut evidence.messages[5])), [Breach::Dead]);
    assert_eq!(found(|evidence| evidence.messages[5].outcome = None), [Breach::Stuck]);
    assert_eq!(found(|evidence| evidence.messages[5].retry_count = 1), [Breach::Counted]);
    let other = |evidence: &mut Evidence| {
        let message = Message { operation: "email_fetch".into(), ..evidence.messages[0].clone() };
        evidence.messages.push(message);
    };
    assert_eq!(found(other), [Breach::Wrong]);
}

#[test]
fn a_decision_that_is_missing_and_one_too_many_are_found() {
    let with = |decisions: i64| {
        found(|evidence| {
            let update = evidence.messages.iter_mut().find(|message| message.decisions == 1);
            update.unwrap().decisions = decisions;
        })
    };
    assert_eq!((with(0), with(2)), (vec![Breach::Lost], vec![Breach::Twice]));
}

#[test]
fn what_a_mail_shows_must_be_what_came_of_its_update() {
    let shows = |kind: Kind, shows: &str| {
        found(|evidence| {
            let index = last(evidence, kind);
            evidence.mails[index].shows = shows.into();
        })
    };
    assert_eq!(shows(Kind::Unsure, "completed/auto_matched/synced"), [Breach::Wrong]);
    assert_eq!(shows(Kind::Mail, "completed/needs_review/not_applicable"), [Breach::Wrong]);
    assert_eq!(shows(Kind::Absence, "completed/auto_matched/synced"), [Breach::Wrong]);
}

#[test]
fn what_is_said_to_be_superseded_had_something_newer() {
    let newest = found(|evidence| {
        let id = evidence.entries[4].0.email_id;
        let message =
            evidence.messages.iter_mut().find(|message| message.email_id == id && message.decisions == 1);
        message.unwrap().outcome = Some("superseded".into());
    });
    assert_eq!(newest, [Breach::Lost]);
}

#[test]
fn whatever_else_was_strange_is_told() {
    assert_eq!(found(|evidence| evidence.strange.push("a panic".into())), [Breach::Wrong]);
}

#[test]
fn an_outcome_that_the_delivery_cannot_have_and_a_mail_that_shows_another_are_wrong() {
    let written = |evidence: &mut Evidence| {
        let id = evidence.mails[last(evidence, Kind::Unsure)].id;
        let message = evidence.messages.iter_mut().find(|message| message.email_id == id).unwrap();
        message.outcome = Some("already".into());
    };
    assert_eq!(found(written), [Breach::Lost, Breach::Wrong]);
    assert_eq!(
        found(|evidence| evidence.mails[3].shows = "matching/no_match/pending".into()),
        [Breach::Wrong]
    );
}

#[test]
fn a_stamp_that_falls_is_backwards_and_one_that_comes_again_is_twice() {
    let hot = |evidence: &Evidence| -> Vec<usize> {
        let entry = evidence.history[0].entry;
        (0..evidence.history.len()).filter(|index| evidence.history[*index].entry == entry).collect()
    };
    let turned = found(|evidence| {
        let of_entry = hot(evidence);
        evidence.history.swap(of_entry[0], of_entry[1]);
    });
    assert_eq!(turned, [Breach::Backwards]);
    let again = found(|evidence| {
        let of_entry = hot(evidence);
        evidence.history.insert(of_entry[0], evidence.history[of_entry[0]]);
    });
    assert_eq!(again, [Breach::Twice]);
}

#[test]
fn an_update_that_is_said_to_be_applied_and_was_not_is_lost() {
    assert_eq!(found(|evidence| _ = evidence.history.remove(10)), [Breach::Lost]);
}

#[test]
fn an_entry_that_holds_an_older_another_or_no_value_is_found_in_mongodb_and_in_the_ledger() {
    let older = |held: &mut Held| held.stamp -= 1 << 20;
    assert_eq!(found(|evidence| older(&mut evidence.entries[4].0)), [Breach::Lost]);
    assert_eq!(found(|evidence| older(&mut evidence.ledger[4])), [Breach::Lost]);
    assert_eq!(found(|evidence| evidence.entries[4].0.cents += 1), [Breach::Wrong]);
    assert_eq!(found(|evidence| evidence.ledger[4].email_id += 1), [Breach::Wrong]);
    assert_eq!(found(|evidence| _ = evidence.entries.pop()), [Breach::Lost]);
    let nobodys = Held { entry: 999, stamp: 1, email_id: 1, cents: 1 };
    let tells = Told { fields: String::new(), text: String::new() };
    assert_eq!(found(|evidence| evidence.entries.push((nobodys, tells))), [Breach::Wrong]);
}

#[test]
fn an_entry_that_tells_of_another_mail_than_it_holds_is_wrong() {
    let of = |kind: Kind, evidence: &Evidence| {
        let is_it =
            |held: &Held| evidence.sent[usize::try_from(held.email_id - 1000).unwrap()].delivery.kind == kind;
        evidence.entries.iter().position(|(held, _)| is_it(held)).unwrap()
    };
    for kind in [Kind::Mail, Kind::Update] {
        let text = found(|evidence| {
            let index = of(kind, evidence);
            evidence.entries[index].1.text = "die Forderung beträgt 1,00 EUR".into();
        });
        assert_eq!(text, [Breach::Wrong], "{kind:?}");
        let fields = found(|evidence| {
            let index = of(kind, evidence);
            evidence.entries[index].1.fields =
                evidence.entries[index].1.fields.replace("responded", "email_sent");
        });
        assert_eq!(fields, [Breach::Wrong], "{kind:?}");
    }
}

#[test]
fn what_a_person_has_to_decide_must_not_be_in_mongodb() {
    let written = found(|evidence| {
        let index = last(evidence, Kind::Unsure);
        let (delivery, id) = (evidence.sent[index].delivery, evidence.mails[index].id);
        evidence.history.push(held(&delivery, id));
    });
    assert!(written.contains(&Breach::Wrong), "{written:?}");
}
