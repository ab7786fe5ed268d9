//! The interface document says what the service does.

use crate::harness::*;
use serde_json::Value;
use testkit::Database;

fn document() -> Value {
    serde_json::from_str(ingest::openapi::DOCUMENT).unwrap()
}

#[tokio::test]
async fn every_path_and_method_of_the_document_is_served_and_every_other_method_is_not() {
    let database = Database::new().await;
    let service = Service::over(&database).await;
    let served = service.get("/openapi.json").await;
    assert_eq!((served.status, served.headers["content-type"].to_str().unwrap()), (200, "application/json"));
    let document = served.json();
    assert!(document["openapi"].as_str().unwrap().starts_with("3.1"));
    let paths = document["paths"].as_object().unwrap();
    assert_eq!(paths.len(), 12);
    for (path, item) in paths {
        let path = path.replace("{id}", "1").replace("{name}", "overloaded");
        for method in ["get", "post", "put", "delete"] {
            let request = hyper::Request::builder().method(method.to_uppercase().as_str()).uri(&path);
            let answer = send(service.address, request.body(Default::default()).unwrap()).await;
            if answer.status == 405 {
                answer.is_problem(405, "method-not-allowed");
            }
            assert_eq!(answer.status == 405, item[method].is_null(), "{method} {path}: {answer:?}");
            let said = answer.status.to_string();
            assert!(
                answer.status == 405 || !item[method]["responses"][&said].is_null(),
                "{method} {path} answers {said}"
            );
        }
    }
}

#[test]
fn every_reference_leads_somewhere_and_every_limit_is_the_one_in_force() {
    use ingest::debt_update::{
        MAX_NAME_CHARACTERS, MAX_NUMBER_CHARACTERS, MAX_REFERENCE_NUMBERS, MAX_RESPONSE_CHARACTERS,
    };
    let document = document();
    check_references(&document, &document);
    let update = &document["components"]["schemas"]["DebtUpdate"];
    assert_eq!(update["additionalProperties"], false);
    let properties = &update["properties"];
    for (name, member, limit) in [
        ("client_name", "maxLength", MAX_NAME_CHARACTERS),
        ("creditor_name", "maxLength", MAX_NAME_CHARACTERS),
        ("client_aktenzeichen", "maxLength", MAX_NUMBER_CHARACTERS),
        ("reference_numbers", "maxItems", MAX_REFERENCE_NUMBERS),
        ("response_text", "maxLength", MAX_RESPONSE_CHARACTERS),
        ("ticket_id", "maxLength", ingest::email::MAX_ID_CHARACTERS),
    ] {
        assert_eq!(properties[name][member], limit, "{name}");
    }
    let keys = &document["components"]["schemas"]["IdempotencyKey"]["anyOf"];
    assert_eq!(keys[0]["maxLength"], ingest::request_key::MAX_KEY_BYTES);
    // In quotes, and each character escaped.
    assert_eq!(keys[1]["maxLength"], 2 * ingest::request_key::MAX_KEY_BYTES + 2);
}

#[test]
fn every_failure_of_the_document_is_a_problem_document() {
    let document = document();
    for (name, response) in document["components"]["responses"].as_object().unwrap() {
        let problem = !response["content"]["application/problem+json"].is_null();
        assert_eq!(problem, !matches!(name.as_str(), "Stored" | "Status"), "{name}");
    }
}

#[tokio::test]
async fn the_type_of_every_problem_is_in_the_document_and_leads_to_its_page() {
    let database = Database::new().await;
    let service = Service::over(&database).await;
    let document = document();
    let mut types: Vec<_> =
        ingest::problem::Problem::ALL.iter().map(|problem| format!("/problems/{}", problem.name())).collect();
    types.dedup();
    assert_eq!(
        document["components"]["schemas"]["Problem"]["properties"]["type"]["enum"],
        serde_json::json!(types)
    );
    for path in types.iter().map(String::as_str).chain(["/problems"]) {
        let page = service.get(path).await;
        assert_eq!(
            (page.status, page.headers["content-type"].to_str().unwrap()),
            (200, "text/html; charset=utf-8")
        );
    }
    service.get("/problems/nothing").await.is_problem(404, "not-found");
}

/// Runs schemathesis, with the checks it has but for these, and returns what it says if it finds anything.
async fn schemathesis(service: &Service, hooks: bool, excluded: &str) -> Result<(), String> {
    let folder = std::env::var("SCHEMATHESIS").expect("SCHEMATHESIS: run the tests by `deploy/dev test`");
    let program = std::path::Path::new(&folder).join("bin").join("schemathesis");
    let here =
        std::env::temp_dir().join(format!("ingest-schemathesis-{}-{}", std::process::id(), excluded.len()));
    std::fs::create_dir_all(&here).unwrap();
    let run = tokio::process::Command::new("python3")
        .arg(program)
        .args(["run", &format!("http://{}/openapi.json", service.address), "--checks", "all", "--seed", "1"])
        .args([
            "--exclude-checks",
            excluded,
            "--max-examples",
            "60",
            "--continue-on-failure",
            "--warnings",
            "off",
        ])
        .args([
            "--header",
            &format!("Authorization: Bearer {TOKEN}"),
            "--phases",
            "examples,coverage,fuzzing",
        ])
        .env("PYTHONPATH", format!("{folder}:{}/tests", env!("CARGO_MANIFEST_DIR")))
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .envs(hooks.then_some(("SCHEMATHESIS_HOOKS", "schemathesis_hooks")))
        .env("API_TOKENS", TOKEN)
        .env("ZENDESK_WEBHOOK_SECRET", ZENDESK_SECRET)
        .env("STANDARD_WEBHOOK_SECRET", STANDARD_SECRET)
        .current_dir(&here)
        .kill_on_drop(true)
        .output();
    let output = run.await.unwrap();
    std::fs::remove_dir_all(here).unwrap();
    match output.status.success() {
        true => Ok(()),
        false => Err(String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()),
    }
}

/// No 5xx, only the documented codes, headers and bodies, what the document allows is taken and nothing else. The hooks sign.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn schemathesis_finds_nothing() {
    let database = Database::new().await;
    let service = Service::over(&database).await;
    // Of a case without its token nothing is left to tell it from one whose token is the hooks' business.
    if let Err(found) = schemathesis(&service, true, "ignored_auth,missing_required_header").await {
        panic!("{found}");
    }
    assert_whole(&database.client().await).await;
}

/// What needs a signature or a token is a 401 without one, whatever else is sent.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn schemathesis_gets_nowhere_without_signatures() {
    let database = Database::new().await;
    let service = Service::over(&database).await;
    if let Err(found) =
        schemathesis(&service, false, "positive_data_acceptance,negative_data_rejection").await
    {
        panic!("{found}");
    }
    let signed = "select count(*) from incoming_emails where source <> 'api'";
    assert_eq!(count(&database.client().await, signed).await, 0);
}

#[tokio::test]
async fn every_field_of_an_event_is_in_the_document_and_read() {
    let database = Database::new().await;
    let service = Service::over(&database).await;
    let document = document();
    let data =
        document["components"]["schemas"]["StandardEvent"]["properties"]["data"]["properties"].as_object();
    let mut names: Vec<_> = data.unwrap().keys().map(String::as_str).collect();
    let read =
        ["attachments", "bcc", "cc", "email_id", "from", "html", "message_id", "subject", "text", "to"];
    let wrong: serde_json::Map<_, _> = read.iter().map(|name| ((*name).into(), 1.into())).collect();
    let body = serde_json::json!({"type": "email.received", "data": wrong}).to_string();
    let headers = standard_verifier().sign(None, jiff::Timestamp::now(), body.as_bytes());
    let mut pointers = service.post(STANDARD, headers, body).await.pointers();
    pointers.sort();
    assert_eq!(pointers, read.map(|name| format!("/data/{name}")));
    // A time that cannot be read is no error.
    names.retain(|name| *name != "created_at");
    assert_eq!(names, read);
}

fn check_references(document: &Value, part: &Value) {
    match part {
        Value::Object(members) => {
            if let Some(Value::String(reference)) = members.get("$ref") {
                assert!(document.pointer(reference.trim_start_matches('#')).is_some(), "{reference}");
            }
            members.values().for_each(|member| check_references(document, member));
        }
        Value::Array(items) => items.iter().for_each(|item| check_references(document, item)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}
