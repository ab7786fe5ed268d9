//! The pages that the `type` of a problem leads to: what it means and what to do, for whoever looks at a failed delivery.

use crate::problem::Problem;
use std::fmt::Write;

/// The page of the problems with this name, or of all where it is empty.
///
/// # Errors
/// [`Problem::UnknownPath`].
pub fn page(name: &str) -> Result<String, Problem> {
    let mut text = String::new();
    let mut before = "";
    for problem in Problem::ALL.iter().filter(|problem| name.is_empty() || problem.name() == name) {
        let (name, title, status) = (problem.name(), problem.title(), problem.status());
        let retry = match problem.retry_after_seconds() {
            Some(seconds) => {
                format!("Passes by itself: send the same request again after {seconds} s (Retry-After).")
            }
            None if status == 408 || status == 500 => "Send the same request again.".into(),
            None => "Does not pass by itself: the same request again gets the same answer.".into(),
        };
        if name != before {
            let _ = write!(
                text,
                "<h2><a href=\"/problems/{name}\">{name}</a></h2><p><b>{status}</b> {title}.</p>"
            );
            before = name;
        }
        let _ = write!(text, "<p>{} {retry}</p>", problem.detail());
    }
    if text.is_empty() {
        return Err(Problem::UnknownPath);
    }
    Ok(format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>Problems of ingest</title>\
         <style>body{{font-family:sans-serif;max-width:42em;margin:2em auto;padding:0 1em;line-height:1.5}}</style>\
         <h1>Problems of ingest</h1>{text}<p><a href=\"/problems\">All problems</a>, <a href=\"/openapi.json\">interface</a></p>"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_problem_has_a_page_and_is_on_the_page_of_all() {
        let all = page("").unwrap();
        for problem in Problem::ALL {
            let page = page(problem.name()).unwrap();
            for part in [problem.name(), problem.title(), problem.detail()] {
                assert!(page.contains(part) && all.contains(part), "{part}");
            }
        }
        assert_eq!(page("nothing"), Err(Problem::UnknownPath));
    }
}
