//! Answers of the API and what is taken over from them.

use super::*;

fn resend(url: &str) -> Resend {
    let config = ResendConfig {
        authorization: HeaderValue::from_static("Bearer re_1"),
        url: url.parse().unwrap(),
        timeout: Duration::from_secs(1),
    };
    Resend::new(&config).unwrap()
}

#[test]
fn an_id_is_one_segment_of_the_path_whatever_it_holds() {
    for (id, path) in [
        ("56761188-7520-42d8-8898-ff6fc54ce618", "56761188-7520-42d8-8898-ff6fc54ce618"),
        ("../x", "..%2Fx"),
        ("a?b#c", "a%3Fb%23c"),
        ("a\\b", "a%5Cb"),
        ("%2e%2e", "%252e%252e"),
        ("//evil.example/x", "%2F%2Fevil.example%2Fx"),
        ("@evil.example", "@evil.example"),
    ] {
        for base in ["https://api.example", "https://api.example/"] {
            let expected = format!("https://api.example/emails/receiving/{path}?html_format=cid");
            assert_eq!(resend(base).address(id).as_str(), expected);
        }
    }
    let below = resend("https://proxy.example/resend/v1/").address("e1");
    assert_eq!(below.path(), "/resend/v1/emails/receiving/e1");
}

#[test]
fn the_documented_answer_is_read() {
    let body = br#"{
        "object": "email", "id": "4ef9a417", "to": ["post@kanzlei.example"], "from": "Bank <a@bank.example>",
        "created_at": "2026-04-03T22:13:42.674981+00:00", "subject": "Hello", "html": "<p>H\u00e4lt</p>", "text": null,
        "headers": {"Return-Path": "<a@bank.example>", "mime-version": "1.0"},
        "bcc": [], "cc": [], "reply_to": [], "message_id": "<example+123>",
        "raw": {"download_url": "https://example.com/raw", "expires_at": "2026-04-03T23:13:42.674981+00:00"},
        "attachments": [{"id": "2a0c", "filename": "avatar.png", "content_type": "image/png", "content_disposition": "inline",
            "content_id": "img001", "size": 4096}]
    }"#;
    let Received { parts, cut } = read(body).unwrap();
    assert_eq!((parts.body_text, parts.body_html.as_deref(), cut.len()), (None, Some("<p>Hält</p>"), 0));
    assert_eq!(parts.headers, Some(json!({"return-path": "<a@bank.example>", "mime-version": "1.0"})));
    let attachment =
        json!([{"id": "2a0c", "filename": "avatar.png", "content_type": "image/png", "size": 4096}]);
    assert_eq!(parts.attachments, Some(attachment));
}

#[test]
fn headers_may_be_a_list_and_the_first_of_a_name_counts() {
    let list = json!([
        {"name": "Auto-Submitted", "value": "auto-replied"}, {"name": "auto-submitted", "value": "no"}, {"name": "X"}, 7,
        {"name": "List-Id", "value": ["<a.example>", "second"]}, {"name": "X-Number", "value": 7},
    ]);
    let expected = json!({"auto-submitted": "auto-replied", "list-id": "<a.example>"});
    assert_eq!(Value::Object(headers_of(&list)), expected);
    for odd in [json!(null), json!("x"), json!(1), json!(true), json!([[]])] {
        assert!(headers_of(&odd).is_empty());
    }
}

#[test]
fn what_is_taken_over_is_bounded_and_can_be_stored() {
    let long = "ä".repeat(PART_LIMIT);
    let headers: Map<String, Value> =
        (0..1000).map(|n| (format!("x-{n}"), "ü".repeat(5000).into())).collect();
    let attachments: Vec<_> = (0..2000).map(|_| json!({"filename": "x".repeat(1000)})).collect();
    let body =
        json!({ "text": format!("x{long}"), "html": "a\0b", "headers": headers, "attachments": attachments });
    let Received { parts, cut } = read(body.to_string().as_bytes()).unwrap();
    assert_eq!((parts.body_text.unwrap().len(), cut), (PART_LIMIT - 1, vec!["text"]));
    assert_eq!(parts.body_html.as_deref(), Some("ab"));
    let headers = parts.headers.unwrap();
    assert_eq!(headers.as_object().unwrap().len(), HEADERS);
    assert!(headers.as_object().unwrap().values().all(|value| value.as_str().unwrap().len() == HEADER_LIMIT));
    assert_eq!(parts.attachments.unwrap().as_array().unwrap().len(), ATTACHMENTS);
}

#[test]
fn half_a_character_does_not_spoil_the_rest() {
    let Received { parts, .. } =
        read(br#"{"subject": "\ud83d", "text": "5 \u20ac \ud83d.", "html": "\udc00"}"#).unwrap();
    assert!(parts.body_text.unwrap().starts_with("5 € "));
    assert!(parts.body_html.is_some());
}

#[test]
fn an_empty_mail_is_a_mail_and_anything_but_an_object_is_none() {
    let Received { parts, cut } = read(br#"{"id": "e1", "text": null}"#).unwrap();
    assert_eq!((parts.body_text, parts.body_html, parts.attachments, cut.len()), (None, None, None, 0));
    assert_eq!(parts.headers, Some(json!({})));
    for broken in [
        &b"[]"[..],
        b"{}",
        br#"{"message": "ok"}"#,
        b"",
        b"<html>",
        b"{\"text\": 5}",
        b"{\"text\": \"geheim",
        b"null",
    ] {
        let failure = read(broken).unwrap_err();
        assert_eq!(failure.class, FailureClass::Transient);
        assert!(!failure.text.contains("geheim"), "{failure}");
    }
}

#[test]
fn a_refusal_says_what_the_provider_calls_it_and_nothing_else() {
    let class = |status: u16| refusal(StatusCode::from_u16(status).unwrap(), b"", None).class;
    for (statuses, expected) in [
        (&[408, 429, 500, 502, 503, 599][..], FailureClass::SinkDown),
        (&[401, 403, 301, 302, 405, 451], FailureClass::SinkMisconfigured),
        (&[404], FailureClass::Transient),
        (&[400, 410, 422], FailureClass::Permanent),
    ] {
        assert!(statuses.iter().all(|status| class(*status) == expected), "{expected:?}");
    }
    let said = |body: &[u8]| refusal(StatusCode::UNAUTHORIZED, body, None).text;
    let body = br#"{"statusCode": 401, "name": "restricted_api_key", "message": "about a@b.example"}"#;
    assert_eq!(said(body), "Resend answers 401 (restricted_api_key)");
    for odd in [&b"geheim"[..], br#"{"name": "Frau Geheim"}"#, br#"{"name": 5}"#, br#"{"name": ""}"#] {
        assert_eq!(said(odd), "Resend answers 401");
    }
}

#[test]
fn the_time_that_is_asked_for_is_kept_within_bounds() {
    let now: Timestamp = "2026-06-01T12:00:00Z".parse().unwrap();
    let pause = |status: u16, text: Option<&str>| {
        let mut headers = HeaderMap::new();
        if let Some(text) = text {
            headers.insert(RETRY_AFTER, text.parse().unwrap());
        }
        pause_of(StatusCode::from_u16(status).unwrap(), &headers, now).map(|pause| pause.as_secs())
    };
    assert_eq!(pause(429, Some("7")), Some(7));
    assert_eq!(pause(503, Some(" 30 ")), Some(30));
    assert_eq!(pause(429, Some("Mon, 01 Jun 2026 12:01:30 GMT")), Some(90));
    assert_eq!(pause(429, Some("Mon, 01 Jun 2026 11:00:00 GMT")), Some(1));
    assert_eq!(pause(429, Some("99999999")), Some(3600));
    assert_eq!(
        (pause(429, None), pause(429, Some("soon")), pause(429, Some("0"))),
        (Some(1), Some(1), Some(1))
    );
    assert_eq!((pause(503, None), pause(500, Some("7")), pause(401, Some("7"))), (None, None, None));
}
