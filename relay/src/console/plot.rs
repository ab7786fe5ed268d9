//! A line over the last hour as SVG: no script, no library. Pure.

use super::history::{EVERY, Sample};
use maud::{Markup, html};

const WIDTH: f64 = 560.0;
const HEIGHT: f64 = 120.0;
/// Room for the numbers at the left and the times below.
const LEFT: f64 = 56.0;
const BELOW: f64 = 18.0;

/// The plot of one figure; words where there is nothing to draw yet.
pub(super) fn plot(title: &str, unit: &str, samples: &[Sample], value: impl Fn(&Sample) -> f64) -> Markup {
    let (Some(first), Some(last)) = (samples.first(), samples.last()) else {
        return html! { figure { figcaption { (title) } p.quiet { "The first point comes within " (EVERY.as_secs()) " seconds." } } };
    };
    let highest = samples.iter().map(&value).fold(0.0, f64::max);
    let top = round_up(highest);
    let span = (last.at.as_second() - first.at.as_second()).max(1);
    #[expect(clippy::cast_precision_loss, reason = "an hour in seconds")]
    let x = |sample: &Sample| {
        LEFT + (WIDTH - LEFT) * (sample.at.as_second() - first.at.as_second()) as f64 / span as f64
    };
    let y = |figure: f64| (HEIGHT - BELOW) * (1.0 - figure / top) + 4.0;
    let points: Vec<String> =
        samples.iter().map(|sample| format!("{:.1},{:.1}", x(sample), y(value(sample)))).collect();
    let time = |sample: &Sample| format!("{}", sample.at.strftime("%H:%M:%S"));
    let described = format!(
        "{title}: now {} {unit}, highest {} since {} UTC",
        short(value(last)),
        short(highest),
        time(first)
    );
    html! {
        figure {
            figcaption { (title) " " strong { (short(value(last))) } " " (unit) }
            svg viewBox=(format!("0 0 {WIDTH} {}", HEIGHT + 6.0)) role="img" aria-label=(described) {
                title { (described) }
                @for share in [0.0, 0.5, 1.0] {
                    line.grid x1=(LEFT) x2=(WIDTH) y1=(y(top * share)) y2=(y(top * share)) {}
                    text x=(LEFT - 6.0) y=(y(top * share) + 4.0) text-anchor="end" { (short(top * share)) }
                }
                text x=(LEFT) y=(HEIGHT + 2.0) { (time(first)) }
                text x=(WIDTH) y=(HEIGHT + 2.0) text-anchor="end" { (time(last)) " UTC" }
                @if let [only] = points.as_slice() {
                    @if let Some((cx, cy)) = only.split_once(',') { circle cx=(cx) cy=(cy) r="3" {} }
                } @else {
                    polyline points=(points.join(" ")) {}
                }
            }
        }
    }
}

/// The next of 1, 2, 5, 10, 20, .. that is not below.
fn round_up(figure: f64) -> f64 {
    let mut step = 1.0;
    while step < 1e15 {
        for factor in [1.0, 2.0, 5.0] {
            if step * factor >= figure {
                return step * factor;
            }
        }
        step *= 10.0;
    }
    figure
}

/// A number for people: 950, 12.4k, 3.1M.
pub(super) fn short(figure: f64) -> String {
    match figure {
        figure if figure >= 1e6 => format!("{:.1}M", figure / 1e6),
        figure if figure >= 1e4 => format!("{:.1}k", figure / 1e3),
        figure if figure >= 10.0 || figure.fract() == 0.0 => format!("{figure:.0}"),
        figure => format!("{figure:.1}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scales_end_at_round_numbers() {
        assert_eq!([0.0, 1.0, 3.0, 7.0, 11.0, 4900.0].map(round_up), [1.0, 1.0, 5.0, 10.0, 20.0, 5000.0]);
        assert_eq!([0.0, 2.5, 950.0, 12_400.0, 3_100_000.0].map(short), ["0", "2.5", "950", "12.4k", "3.1M"]);
    }

    #[test]
    fn one_sample_is_a_point_and_more_are_a_line() {
        let sample = |second| Sample {
            at: jiff::Timestamp::from_second(second).unwrap(),
            waiting: 5.0,
            lag: 0.0,
            finished: 1.0,
        };
        let draw = |samples: &[Sample]| plot("Waiting", "messages", samples, |sample| sample.waiting).0;
        assert!(draw(&[]).contains("first point"));
        assert!(draw(&[sample(0)]).contains("<circle"));
        assert!(draw(&[sample(0), sample(15)]).contains("<polyline points=\"56.0,"));
    }
}
