-- A database as the replaced service leaves it: its tables (times without a zone, JSON kept as text), and rows of every kind.
create table incoming_emails (
    id serial primary key,
    zendesk_ticket_id varchar(64) not null,
    zendesk_webhook_id varchar(255) unique,
    from_email varchar(255) not null,
    from_name varchar(255),
    subject text,
    raw_body_html text,
    raw_body_text text,
    cleaned_body text,
    token_count_before integer,
    token_count_after integer,
    extracted_data json,
    processing_status varchar(50) not null default 'received',
    processing_error text,
    match_status varchar(50),
    match_confidence integer,
    received_at timestamp without time zone,
    processed_at timestamp without time zone,
    matched_at timestamp without time zone,
    created_at timestamp without time zone not null default (now() at time zone 'utc'),
    updated_at timestamp without time zone,
    sync_status varchar(50) default 'pending',
    sync_error text,
    sync_retry_count integer default 0,
    idempotency_key varchar(255) unique,
    attachment_urls json,
    to_addresses text[],
    cc_addresses text[],
    in_reply_to_header text,
    kanzlei_id varchar(64)
);
create table outbox_messages (
    id serial primary key,
    aggregate_type varchar(100) not null,
    aggregate_id integer not null,
    operation varchar(50) not null,
    payload json not null,
    idempotency_key varchar(255) unique not null,
    created_at timestamp without time zone not null default (now() at time zone 'utc'),
    processed_at timestamp without time zone,
    retry_count integer not null default 0,
    max_retries integer not null default 5,
    error_message text
);
create table idempotency_keys (
    id serial primary key,
    key varchar(255) unique not null,
    result json,
    created_at timestamp without time zone not null default (now() at time zone 'utc'),
    expires_at timestamp without time zone not null
);
create table reconciliation_reports (
    id serial primary key,
    run_at timestamp without time zone not null default (now() at time zone 'utc'),
    completed_at timestamp without time zone,
    records_checked integer default 0,
    mismatches_found integer default 0,
    auto_repaired integer default 0,
    failed_repairs integer default 0,
    details json,
    status varchar(20),
    error_message text
);

insert into incoming_emails (id, zendesk_ticket_id, zendesk_webhook_id, from_email, from_name, subject, raw_body_text, extracted_data,
    processing_status, match_status, match_confidence, received_at, processed_at, created_at, updated_at, sync_status, idempotency_key,
    attachment_urls, to_addresses, kanzlei_id) values
-- Written, twice by the same creditor: MongoDB has the second amount.
(1, '9001', 'wh-1', 'konto@turmhaus.example', 'Turmhaus', 'Forderung', 'Gesamtforderung 900,00 EUR',
    '{"is_creditor_reply": true, "client_name": "Adler, Eva", "creditor_name": "Turmhaus Kontor GmbH", "debt_amount": 900.0, "reference_numbers": ["2024_118"], "confidence": 0.9, "summary": "Stand heute"}',
    'completed', 'auto_matched', 90, '2026-05-01 08:00:00', '2026-05-01 08:01:00', '2026-05-01 08:00:01', '2026-05-01 08:01:00', 'synced',
    'creditor_debt_update:1:00112233aabbccdd', null, '{kanzlei@firm.example}', 'k1'),
(2, '9001', 'wh-2', 'konto@turmhaus.example', 'Turmhaus', 'Forderung', 'Gesamtforderung 850,10 EUR',
    '{"is_creditor_reply": true, "client_name": "Eva Adler", "creditor_name": "Turmhaus Kontor GmbH", "debt_amount": 850.10, "reference_numbers": ["2024_118"], "confidence": 0.9, "summary": null}',
    'completed', 'auto_matched', 90, '2026-05-10 08:00:00', '2026-05-10 08:01:00', '2026-05-10 08:00:01', '2026-05-10 08:01:00', 'synced',
    'creditor_debt_update:2:00112233aabbccde', '[{"url": "https://a.example/1", "filename": "brief.pdf"}]', null, 'k1'),
-- An outage was taken for "not found", five times; and a newer mail of the client is written: a person has to look.
(3, '9002', 'wh-3', 'konto@turmhaus.example', null, 'Forderung', 'x',
    '{"is_creditor_reply": true, "client_name": "Adler, Eva", "creditor_name": "Turmhaus Kontor GmbH", "debt_amount": "700.00", "reference_numbers": [], "confidence": 0.9, "summary": null}',
    'failed', 'no_match', null, '2026-05-05 08:00:00', null, '2026-05-05 08:00:01', '2026-05-05 09:00:00', 'failed', null, null, null, 'k1'),
-- The same, and nothing newer of this client: it goes on. No id of the webhook.
(4, '9003', null, 'post@seeblick.example', 'Seeblick', 'Stand', 'x',
    '{"is_creditor_reply": true, "client_name": "Brandt, Jo", "creditor_name": "Seeblick Wohnen eG", "debt_amount": 1234.56, "reference_numbers": ["2024_200"], "confidence": 0.95, "summary": "s"}',
    'failed', null, null, '2026-05-06 08:00:00.25', null, '2026-05-06 08:00:01', '2026-05-06 09:00:00', 'failed', null, null, null, 'k1'),
-- The made-up 100 EUR, never written.
(5, '9004', 'wh-5', 'post@seeblick.example', null, 'Stand', 'x',
    '{"is_creditor_reply": true, "client_name": "Brandt, Jo", "creditor_name": "Seeblick Wohnen eG", "debt_amount": null, "reference_numbers": ["2024_200"], "confidence": 0.95, "summary": null}',
    'extracted', null, null, '2026-05-20 08:00:00', null, '2026-05-20 08:00:01', '2026-05-20 08:00:01', 'pending', null, null, null, 'k1'),
-- Cut off between the answer and the work, before and after everything that was written.
(6, '9005', 'wh-6', 'konto@turmhaus.example', null, 'Forderung', E'Mandant: Adler, Eva\nIhr Zeichen: 2024/118\nDie Gesamtforderung beträgt 999,00 EUR.',
    null, 'extracting', null, null, '2026-04-01 08:00:00', null, '2026-04-01 08:00:01', null, 'pending', null, null, null, 'k1'),
(7, '9006', 'wh-7', 'konto@turmhaus.example', null, 'Forderung', E'Mandant: Adler, Eva\nIhr Zeichen: 2024/118\nDie Gesamtforderung beträgt 910,00 EUR.',
    null, 'received', null, null, '2026-05-21 08:00:00', null, '2026-05-21 08:00:01', null, 'pending', null, null, null, 'k1'),
-- Settled without an amount.
(8, '9007', 'wh-8', 'news@spam.example', null, 'Angebot', 'x', '{"is_creditor_reply": false}', 'not_creditor_reply', null, null,
    '2026-05-02 08:00:00', '2026-05-02 08:01:00', '2026-05-02 08:00:01', '2026-05-02 08:01:00', 'pending', null, null, null, 'k1'),
(9, '9008', 'wh-9', 'amt@stadt.example', null, 'Anfrage', 'x',
    '{"is_creditor_reply": true, "client_name": "Adler, Eva", "creditor_name": "Stadt", "debt_amount": null, "reference_numbers": null, "confidence": 0.4, "summary": null}',
    'completed', 'needs_review', 40, '2026-05-03 08:00:00', '2026-05-03 08:01:00', '2026-05-03 08:00:01', '2026-05-03 08:01:00', 'not_applicable',
    null, null, null, 'k1');
-- Odd ones: no time at all is not possible, but no received_at is; an amount that is no exact one; an old payload without most fields.
insert into incoming_emails (id, zendesk_ticket_id, zendesk_webhook_id, from_email, processing_status, received_at, created_at, sync_status, kanzlei_id)
values (10, '9009', 'wh-10', 'x@odd.example', 'matching', null, '2026-05-22 08:00:00', 'failed', 'k1');

insert into outbox_messages (aggregate_type, aggregate_id, operation, payload, idempotency_key, processed_at, retry_count, error_message) values
('creditor_debt_update', 2, 'UPDATE', '{"client_name": "Eva Adler", "client_aktenzeichen": "2024_118", "creditor_email": "konto@turmhaus.example", "creditor_name": "Turmhaus Kontor GmbH", "new_debt_amount": 850.10, "response_text": null, "reference_numbers": ["2024_118"], "extraction_confidence": 0.9, "creditor_position": 0}', 'k-2', '2026-05-10 08:01:00', 0, null),
('creditor_debt_update', 3, 'UPDATE', '{"client_name": "Adler, Eva", "client_aktenzeichen": "2024/118", "creditor_email": "konto@turmhaus.example", "creditor_name": "Turmhaus Kontor GmbH", "new_debt_amount": "700.00", "response_text": null, "reference_numbers": [], "extraction_confidence": 0.9}', 'k-3', null, 5, 'client or creditor not found'),
('creditor_debt_update', 4, 'UPDATE', '{"client_name": "Brandt, Jo", "client_aktenzeichen": "2024_200", "creditor_email": "post@seeblick.example", "creditor_name": "Seeblick Wohnen eG", "new_debt_amount": 1234.56, "response_text": "s", "reference_numbers": ["2024_200"], "extraction_confidence": 0.95}', 'k-4', null, 5, 'client or creditor not found'),
('creditor_debt_update', 5, 'UPDATE', '{"client_name": "Brandt, Jo", "client_aktenzeichen": "2024_200", "creditor_email": "post@seeblick.example", "creditor_name": "Seeblick Wohnen eG", "new_debt_amount": 100.0, "response_text": null, "reference_numbers": ["2024_200"]}', 'k-5', null, 1, null),
('creditor_debt_update', 10, 'UPDATE', '{"client_name": "Adler, Eva", "creditor_email": "konto@turmhaus.example", "new_debt_amount": 12.3456}', 'k-10', null, 0, null),
('creditor_debt_update', 77, 'UPDATE', '{}', 'k-77', null, 0, null);

insert into idempotency_keys (key, result, expires_at) values
('request-of-2', '{"status": "accepted", "email_id": 2}', (now() at time zone 'utc') + interval '5 hours'),
('creditor_debt_update:2:00112233aabbccde', '{"success": true}', (now() at time zone 'utc') + interval '5 hours'),
('request-of-1', '{"status": "accepted", "email_id": 1}', (now() at time zone 'utc') - interval '1 hour');
