//! A chart as a picture: SVG that browsers, papers and slides show as it is.

use std::fmt::Arguments;

use super::{Chart, Scale, Series, Style};

/// The size of the picture, and of its margins.
const WIDTH: f64 = 860.0;
const HEIGHT: f64 = 480.0;
const LEFT: f64 = 80.0;
const TOP: f64 = 44.0;
const BOTTOM: f64 = 56.0;
/// What is left for the legend, where there is one. The picture is wider where its labels are longer.
const LEGEND: f64 = 240.0;
const PLAIN_RIGHT: f64 = 24.0;
/// A line of the legend is so high, and so many have room.
const LEGEND_LINE: f64 = 17.0;
const LEGEND_LINES: usize = 22;
const LEGEND_CHARACTERS: usize = 100;
/// From the chart to the labels, and a character of them, which no common font has wider on average.
const LEGEND_MARK: f64 = 40.0;
const CHARACTER: f64 = 7.2;
/// The colours of Okabe and Ito, which people who see colours differently tell apart.
const COLOURS: [&str; 8] =
    ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8c6d00", "#555555"];

/// Where the inside of the chart is.
struct Frame {
    right: f64,
    x: Scale,
    y: Scale,
}

impl Frame {
    fn at(&self, x: f64, y: f64) -> (f64, f64) {
        (LEFT + x * (self.right - LEFT), HEIGHT - BOTTOM - y * (HEIGHT - BOTTOM - TOP))
    }
}

/// Draws charts, one below the other, as the text of an SVG file.
#[must_use]
pub fn svg(charts: &[Chart]) -> String {
    let height = charts.iter().map(|_| HEIGHT).sum::<f64>().max(HEIGHT);
    let width = charts.iter().map(width).fold(WIDTH, f64::max).ceil();
    let mut text = String::new();
    add(
        &mut text,
        format_args!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" \
         height=\"{height}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>"
        ),
    );
    let mut top = 0.0;
    for chart in charts {
        add(&mut text, format_args!("<g transform=\"translate(0 {top})\">\n{}</g>", group(chart)));
        top += HEIGHT;
    }
    text + "</svg>\n"
}

/// How wide a chart is with its legend.
fn width(chart: &Chart) -> f64 {
    let labels = chart.series.iter().take(LEGEND_LINES).map(|it| label(it).chars().count());
    let longest = labels.max().filter(|_| chart.series.len() > 1).unwrap_or(0);
    #[expect(clippy::cast_precision_loss, reason = "at most a hundred")]
    let text = longest as f64 * CHARACTER;
    WIDTH - LEGEND + LEGEND_MARK + text
}

fn label(series: &Series) -> String {
    match series.label.char_indices().nth(LEGEND_CHARACTERS) {
        Some((end, _)) => format!("{}…", &series.label[..end]),
        None => series.label.clone(),
    }
}

fn group(chart: &Chart) -> String {
    let has_legend = chart.series.len() > 1;
    let right = WIDTH - if has_legend { LEGEND } else { PLAIN_RIGHT };
    let (x, y) = chart.scales();
    let frame = Frame { right, x, y };
    let mut text = String::new();
    add(
        &mut text,
        format_args!(
            "<text x=\"{LEFT}\" y=\"26\" font-size=\"15\">{}</text>",
            escaped(&chart.title)
        ),
    );
    axes(&mut text, &frame, chart);
    for (place, series) in chart.series.iter().enumerate().rev() {
        draw(&mut text, &frame, series, chart.style, COLOURS[place % COLOURS.len()]);
    }
    if has_legend {
        legend(&mut text, chart, right + 18.0);
    }
    text
}

fn axes(text: &mut String, frame: &Frame, chart: &Chart) {
    let ((left, bottom), (right, top)) = (frame.at(0.0, 0.0), frame.at(1.0, 1.0));
    for tick in frame.y.ticks(6) {
        let (_, y) = frame.at(0.0, tick.place);
        add(
            text,
            format_args!(
                "<path d=\"M{left:.1} {y:.1}H{right:.1}\" stroke=\"#ddd\"/><text x=\"{:.1}\" y=\"{:.1}\" \
             text-anchor=\"end\">{}</text>",
                left - 8.0,
                y + 4.0,
                escaped(&tick.label)
            ),
        );
    }
    for tick in chart.x_ticks(&frame.x, 8) {
        let (x, _) = frame.at(tick.place, 0.0);
        add(
            text,
            format_args!(
                "<path d=\"M{x:.1} {bottom:.1}v5\" stroke=\"#333\"/><text x=\"{x:.1}\" y=\"{:.1}\" \
             text-anchor=\"middle\">{}</text>",
                bottom + 20.0,
                escaped(&tick.label)
            ),
        );
    }
    add(
        text,
        format_args!(
            "<path d=\"M{left:.1} {top:.1}V{bottom:.1}H{right:.1}\" fill=\"none\" stroke=\"#333\"/>\n\
         <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
            f64::midpoint(left, right),
            bottom + 42.0,
            escaped(&chart.x_label)
        ),
    );
}

fn draw(text: &mut String, frame: &Frame, series: &Series, style: Style, colour: &str) {
    let places = series.points.iter().filter_map(|(x, y)| {
        let (x, y) = (frame.x.place(*x)?, frame.y.place(*y)?);
        Some(frame.at(x, y))
    });
    let places: Vec<(f64, f64)> = places.collect();
    // A curve of one point would not be seen.
    if style == Style::Dots || places.len() == 1 {
        for (x, y) in places {
            add(
                text,
                format_args!(
                    "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"4\" fill=\"{colour}\" fill-opacity=\"0.75\"/>"
                ),
            );
        }
        return;
    }
    let points: Vec<String> = places.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
    add(
        text,
        format_args!(
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"1.5\"/>",
            points.join(" ")
        ),
    );
}

fn legend(text: &mut String, chart: &Chart, left: f64) {
    let n = chart.series.len();
    let shown = if n > LEGEND_LINES { LEGEND_LINES - 1 } else { n };
    let mut y = TOP + 8.0;
    for (place, series) in chart.series.iter().take(shown).enumerate() {
        add(
            text,
            format_args!(
                "<path d=\"M{left:.1} {y:.1}h16\" stroke=\"{}\" stroke-width=\"4\"/><text x=\"{:.1}\" y=\"{:.1}\">{}</text>",
                COLOURS[place % COLOURS.len()],
                left + 22.0,
                y + 4.0,
                escaped(&label(series))
            ),
        );
        y += LEGEND_LINE;
    }
    if n > shown {
        add(
            text,
            format_args!(
                "<text x=\"{left:.1}\" y=\"{:.1}\">and {} more</text>",
                y + 4.0,
                n - shown
            ),
        );
    }
}

/// Adds a line.
fn add(text: &mut String, line: Arguments<'_>) {
    text.extend([&*line.to_string(), "\n"]);
}

/// Text as XML has it. What XML does not allow becomes a sign for what can't be shown.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '<' => escaped += "&lt;",
            '>' => escaped += "&gt;",
            '&' => escaped += "&amp;",
            '"' => escaped += "&quot;",
            c if c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}') => escaped.push('\u{fffd}'),
            c => escaped.push(c),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::super::ScaleKind;
    use super::*;

    #[test]
    fn hostile_names_stay_text_and_long_legends_end() {
        let series = |n: u32| Series {
            label: format!("<script>{n}&\u{1b}"),
            points: vec![(0.0, f64::from(n)), (1.0, 0.0)],
        };
        let chart = Chart {
            title: "a < b".to_owned(),
            x_label: "step".to_owned(),
            x_kind: ScaleKind::Linear,
            x_named: Vec::new(),
            y_kind: ScaleKind::Linear,
            style: Style::Curves,
            series: (0..30).map(series).collect(),
        };
        let text = svg(std::slice::from_ref(&chart));
        assert!(text.contains("a &lt; b") && text.contains("and 9 more"), "{text}");
        assert!(!text.contains("<script>") && !text.contains('\u{1b}'), "{text}");
        assert_eq!(text.matches("<polyline").count(), 30);
        let long = Series { label: "x".repeat(90), ..series(1) };
        let wide = Chart { series: vec![series(0), long], ..chart.clone() };
        let text = svg(&[wide]);
        assert!(text.contains(&"x".repeat(90)) && text.contains("width=\"1308\""), "{text}");
        let alone =
            Chart { series: vec![Series { points: vec![(1.0, 1.0)], ..series(0) }], ..chart };
        assert_eq!(svg(&[alone]).matches("<circle").count(), 1);
    }
}
