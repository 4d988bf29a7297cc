//! Draws the result of a panel's queries as an SVG image: a line for each series, or a table.

use std::fmt::Write;

use crate::dashboard::Panel;
use crate::prometheus::Series;

const WIDTH: f64 = 560.0;
const HEIGHT: f64 = 200.0;
const LEFT: f64 = 66.0;
const RIGHT: f64 = 12.0;
const TOP: f64 = 34.0;
const LINE: f64 = 16.0;
/// Distinct for readers who see few colors, and on light and dark pages.
const COLORS: [&str; 8] = ["#4477aa", "#ee6677", "#228833", "#ccbb44", "#66ccee", "#aa3377", "#999999", "#ee8866"];
const MOST_SERIES: usize = 12;

/// Draws a panel.
pub(crate) fn draw(panel: &Panel) -> String {
    match panel.kind.as_str() {
        "table" => table(panel),
        _ => lines(panel),
    }
}

fn lines(panel: &Panel) -> String {
    let drawn: Vec<(String, &Series)> = panel
        .queries
        .iter()
        .flat_map(|query| query.series.iter().map(|series| (query.legend(series), series)))
        .filter(|(_, series)| series.has_numbers())
        .take(MOST_SERIES)
        .collect();
    let points = || drawn.iter().flat_map(|(_, series)| &series.samples).filter(|(_, value)| value.is_finite());
    let (first, last) = points().fold((f64::MAX, f64::MIN), |(low, high), (at, _)| (low.min(*at), high.max(*at)));
    let most = points().fold(0.0_f64, |most, (_, value)| most.max(*value));
    let top = nice(most);
    let (span, bottom) = ((last - first).max(1.0), HEIGHT - 24.0);
    let x = |at: f64| LEFT + (at - first) / span * (WIDTH - LEFT - RIGHT);
    let y = |value: f64| bottom - (value.max(0.0) / top) * (bottom - TOP);
    let mut body = String::new();
    for step in 0..=4 {
        let value = top * f64::from(step) / 4.0;
        let (at, text) = (y(value), amount(value, &panel.unit));
        let _ = write!(body, r#"<line x1="{LEFT}" y1="{at:.1}" x2="{:.1}" y2="{at:.1}" class="grid"/>"#, WIDTH - RIGHT);
        let _ = writeln!(body, r#"<text x="{:.1}" y="{:.1}" text-anchor="end">{text}</text>"#, LEFT - 6.0, at + 4.0);
    }
    for step in 0..=3 {
        let after = span * f64::from(step) / 3.0;
        let anchor = if step == 3 { "end" } else { "middle" };
        let at = x(first + after);
        let _ =
            writeln!(body, r#"<text x="{at:.1}" y="{:.1}" text-anchor="{anchor}">{after:.0} s</text>"#, HEIGHT - 8.0);
    }
    for (number, (name, series)) in drawn.iter().enumerate() {
        let color = COLORS[number % COLORS.len()];
        let mut path = String::new();
        let mut before = f64::MIN;
        for (at, value) in series.samples.iter().filter(|(_, value)| value.is_finite()) {
            // A gap of more than a few samples interrupts the line.
            let _ = write!(path, "{}{:.1} {:.1}", if at - before > 3.0 { "M" } else { "L" }, x(*at), y(*value));
            before = *at;
        }
        let _ = writeln!(body, r#"<path d="{path}" stroke="{color}" class="line"/>"#);
        let at = HEIGHT + 6.0 + LINE * (number / 2) as f64;
        let left = LEFT + (WIDTH - LEFT) / 2.0 * (number % 2) as f64;
        let _ = write!(body, r#"<rect x="{left:.1}" y="{:.1}" width="10" height="3" fill="{color}"/>"#, at - 5.0);
        let _ = writeln!(body, r#"<text x="{:.1}" y="{at:.1}">{}</text>"#, left + 15.0, escape(&short(name, 38)));
    }
    frame(&panel.title, HEIGHT + 8.0 + LINE * drawn.len().div_ceil(2) as f64, &body)
}

/// The rows are the series, joined by the labels `namespace` and `subscriber`.
fn table(panel: &Panel) -> String {
    const COLUMNS: [(&str, f64); 7] = [
        ("Subscriber", 12.0),
        ("Pending", 130.0),
        ("Oldest", 190.0),
        ("Circuit", 250.0),
        ("Stalled", 330.0),
        ("Delivered", 430.0),
        ("Not", 500.0),
    ];
    let mut names: Vec<_> = panel.queries.iter().flat_map(|query| &query.series).map(name_of).collect();
    names.sort();
    names.dedup();
    let of = |query: usize, name: &str| panel.queries.get(query)?.series.iter().find(|series| name_of(series) == name);
    let number = |query: usize, name: &str, unit: &str| {
        of(query, name)
            .and_then(|series| series.samples.last())
            .map_or(String::new(), |(_, value)| amount(value.round(), unit))
    };
    let label = |query: usize, name: &str, label: &str| {
        of(query, name).map_or(String::new(), |series| series.label(label).to_owned())
    };
    let mut body = String::new();
    let mut row = |at: f64, class: &str, cells: [String; 7]| {
        for ((_, left), cell) in COLUMNS.iter().zip(cells) {
            let _ = write!(body, r#"<text x="{left}" y="{at:.1}" class="{class}">{}</text>"#, escape(&cell));
        }
        body.push('\n');
    };
    row(TOP + 12.0, "head", COLUMNS.map(|(title, _)| title.to_owned()));
    for (position, name) in names.iter().enumerate() {
        let cells = [
            name.clone(),
            number(0, name, ""),
            number(1, name, "s"),
            label(2, name, "state"),
            label(3, name, "reason"),
            number(4, name, ""),
            number(5, name, ""),
        ];
        row(TOP + 12.0 + LINE * (position + 1) as f64, "cell", cells);
    }
    frame(&panel.title, TOP + 24.0 + LINE * (names.len() + 1) as f64, &body)
}

fn name_of(series: &Series) -> String {
    format!("{}/{}", series.label("namespace"), series.label("subscriber"))
}

fn frame(title: &str, height: f64, body: &str) -> String {
    let style = "text{font:12px sans-serif;fill:#333}.title{font-weight:bold}.head{font-weight:bold}\
                 .grid{stroke:#ddd}.line{fill:none;stroke-width:1.5}";
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{height:.0}\" viewBox=\"0 0 {WIDTH} {height:.0}\">\n\
         <style>{style}</style>\n<rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n\
         <text x=\"12\" y=\"20\" class=\"title\">{}</text>\n{body}</svg>\n",
        escape(title)
    )
}

/// The next number of the form 1, 2 or 5 times a power of ten.
fn nice(most: f64) -> f64 {
    if most <= 0.0 {
        return 1.0;
    }
    let power = 10_f64.powf(most.log10().floor());
    [1.0, 2.0, 5.0, 10.0].iter().map(|of| of * power).find(|of| *of >= most).unwrap_or(most)
}

/// A number with its unit, in Grafana's units.
fn amount(value: f64, unit: &str) -> String {
    match unit {
        "s" if value >= 120.0 => format!("{} min", plain(value / 60.0)),
        "s" if value < 1.0 && value > 0.0 => format!("{} ms", plain(value * 1000.0)),
        "s" => format!("{} s", plain(value)),
        "d" => format!("{} d", plain(value)),
        "reqps" => format!("{}/s", plain(value)),
        "bytes" if value >= 1_048_576.0 => format!("{} MiB", plain(value / 1_048_576.0)),
        "bytes" if value >= 1024.0 => format!("{} KiB", plain(value / 1024.0)),
        _ => plain(value),
    }
}

fn plain(value: f64) -> String {
    let text = format!("{value:.3}");
    let digits = if value >= 100.0 { format!("{value:.0}") } else { text };
    if digits.contains('.') { digits.trim_end_matches('0').trim_end_matches('.').to_owned() } else { digits }
}

fn short(text: &str, most: usize) -> String {
    match text.char_indices().nth(most) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text.to_owned(),
    }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short() {
        for (value, unit, text) in [
            (0.0, "s", "0 s"),
            (0.25, "s", "250 ms"),
            (1.5, "s", "1.5 s"),
            (600.0, "s", "10 min"),
            (2048.0, "bytes", "2 KiB"),
            (0.5, "reqps", "0.5/s"),
            (1234.5, "short", "1234"),
            (10.0, "d", "10 d"),
        ] {
            assert_eq!(amount(value, unit), text);
        }
        assert_eq!([0.0, 0.3, 7.0, 20.0, 21.0].map(nice), [1.0, 0.5, 10.0, 20.0, 50.0]);
    }
}
