//! A chart in characters: fine dots of Braille where one curve is drawn or colour tells several apart, else a mark for
//! each. It reads the same without colour, and in ASCII.

use super::{Chart, Scale, Series, Style, Tick};

/// The marks of series that no colour tells apart; more are not drawn at once.
pub const MARKS: [char; 12] = ['o', 'x', '+', '*', '#', '@', '%', '&', '=', 's', 'v', 'w'];
/// Foreground colours of the terminal.
const COLOURS: [u8; 12] = [36, 33, 35, 32, 31, 34, 96, 93, 95, 92, 91, 94];
/// Narrower than this a chart tells nothing.
const LEAST_WIDTH: usize = 30;
/// Columns between two named values of the lower axis.
const TICK_WIDTH: usize = 12;

/// What is drawn on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Canvas {
    /// In columns.
    pub width: usize,
    /// The lines of the chart's inside.
    pub height: usize,
    /// Whether colour is wanted.
    pub colour: bool,
    /// Whether the terminal shows more than ASCII.
    pub unicode: bool,
}

/// The inside of a chart, character by character.
struct CharGrid {
    columns: usize,
    rows: usize,
    /// Dots in a character, to the right and down.
    fineness: (usize, usize),
    cells: Vec<Option<FieldCell>>,
}

/// What is in a character.
#[derive(Clone, Copy)]
struct FieldCell {
    /// The Braille dots.
    dots: u8,
    /// The series that was drawn last.
    series: usize,
}

/// Draws a chart as lines of text.
#[must_use]
pub fn terminal(chart: &Chart, canvas: &Canvas) -> String {
    let (x, y) = chart.scales();
    let y_ticks = y.ticks((canvas.height / 3).max(2));
    let margin = y_ticks.iter().map(|tick| tick.label.chars().count()).max().unwrap_or(0) + 1;
    let columns = canvas.width.max(LEAST_WIDTH).saturating_sub(margin + 2).max(1);
    let field = field(chart, canvas, (columns, canvas.height.max(2)), (&x, &y));
    let mut lines = vec![chart.title.clone()];
    lines.extend((0..field.rows).map(|row| {
        let name = label_of_row(&y_ticks, row, field.rows);
        let axis = axis_character(name.is_some(), canvas);
        let inside = field.line(row, chart, canvas);
        format!("{:>margin$}{axis}{inside}", name.unwrap_or_default()).trim_end().to_owned()
    }));
    let x_ticks = chart.x_ticks(&x, (columns / TICK_WIDTH).max(2));
    lines.extend(lower_axis(&x_ticks, columns, margin, canvas));
    let name = &chart.x_label;
    let middle = margin + 1 + columns.saturating_sub(name.chars().count()) / 2;
    lines.push(format!("{}{name}", " ".repeat(middle)));
    if chart.series.len() > 1 || chart.series.iter().any(|series| !series.label.is_empty()) {
        lines.extend(legend(chart, canvas));
    }
    lines.join("\n")
}

fn field(
    chart: &Chart,
    canvas: &Canvas,
    size: (usize, usize),
    scales: (&Scale, &Scale),
) -> CharGrid {
    let fineness = if is_braille(chart, canvas) { (2, 4) } else { (1, 1) };
    let cells = vec![None; size.0 * size.1];
    let mut field = CharGrid { columns: size.0, rows: size.1, fineness, cells };
    // The first of the legend is on top.
    for (place, series) in chart.series.iter().enumerate().rev() {
        field.draw(series, place, chart.style, scales);
    }
    field
}

/// Marks tell several series apart without colour; single dots of Braille are too small to be seen.
fn is_braille(chart: &Chart, canvas: &Canvas) -> bool {
    canvas.unicode && chart.style == Style::Curves && (canvas.colour || chart.series.len() < 2)
}

impl CharGrid {
    fn draw(&mut self, series: &Series, place: usize, style: Style, (x, y): (&Scale, &Scale)) {
        let (right, down) = self.last_dot();
        let mut before: Option<(usize, usize)> = None;
        for (px, py) in &series.points {
            let at = x.place(*px).zip(y.place(*py));
            let Some((fx, fy)) = at else { continue };
            let dot = (nearest(fx, right), down - nearest(fy, down));
            match before.filter(|_| style == Style::Curves) {
                Some(from) => self.line_between(from, dot, place),
                None => self.dot(dot, place),
            }
            before = Some(dot);
        }
    }

    fn last_dot(&self) -> (usize, usize) {
        (self.columns * self.fineness.0 - 1, self.rows * self.fineness.1 - 1)
    }

    fn line_between(&mut self, from: (usize, usize), to: (usize, usize), series: usize) {
        let steps = from.0.abs_diff(to.0).max(from.1.abs_diff(to.1));
        for step in 0..=steps {
            let part = fraction(step, steps);
            self.dot((between(from.0, to.0, part), between(from.1, to.1, part)), series);
        }
    }

    fn dot(&mut self, (x, y): (usize, usize), series: usize) {
        const DOTS: [[u8; 2]; 4] = [[0x01, 0x08], [0x02, 0x10], [0x04, 0x20], [0x40, 0x80]];
        let (wide, high) = self.fineness;
        let cell = (y / high) * self.columns + x / wide;
        if let Some(cell) = self.cells.get_mut(cell) {
            let dots = cell.map_or(0, |cell| cell.dots) | DOTS[y % high][x % wide];
            *cell = Some(FieldCell { dots, series });
        }
    }

    fn line(&self, row: usize, chart: &Chart, canvas: &Canvas) -> String {
        let cells = self.cells.iter().skip(row * self.columns).take(self.columns);
        let mut text = String::new();
        for cell in cells {
            match cell {
                None => text.push(' '),
                Some(cell) if is_braille(chart, canvas) => {
                    let dots = char::from_u32(0x2800 + u32::from(cell.dots)).unwrap_or(' ');
                    text += &coloured(dots, cell.series, canvas);
                }
                Some(cell) => text += &mark(cell.series, chart, canvas),
            }
        }
        text
    }
}

/// The mark of a series: a filled circle where there is nothing to tell apart.
fn mark(series: usize, chart: &Chart, canvas: &Canvas) -> String {
    let is_alone = chart.series.len() < 2 || canvas.colour;
    let mark = if is_alone && canvas.unicode { '●' } else { MARKS[series % MARKS.len()] };
    coloured(mark, series, canvas)
}

fn coloured(mark: char, series: usize, canvas: &Canvas) -> String {
    if canvas.colour {
        format!("\u{1b}[{}m{mark}\u{1b}[39m", COLOURS[series % COLOURS.len()])
    } else {
        mark.to_string()
    }
}

fn axis_character(is_named: bool, canvas: &Canvas) -> char {
    match (canvas.unicode, is_named) {
        (true, true) => '┤',
        (true, false) => '│',
        (false, true) => '+',
        (false, false) => '|',
    }
}

/// The value that is named beside a line: of several the first.
fn label_of_row(ticks: &[Tick], row: usize, rows: usize) -> Option<String> {
    let found = ticks.iter().find(|tick| rows - 1 - nearest(tick.place, rows - 1) == row);
    found.map(|tick| format!("{} ", tick.label))
}

/// The line below, and the values along it. A name that has no room is left out.
fn lower_axis(ticks: &[Tick], columns: usize, margin: usize, canvas: &Canvas) -> [String; 2] {
    let (corner, dash, cross) =
        if canvas.unicode { ('└', '─', '┬') } else { ('+', '-', '+') };
    let mut axis = vec![dash; columns];
    let mut names = vec![' '; margin + 1 + columns];
    let mut free_from = 0;
    for tick in ticks {
        let at = nearest(tick.place, columns - 1);
        let label: Vec<char> = tick.label.chars().collect();
        let centred = (margin + 1 + at).saturating_sub(label.len() / 2);
        let start = centred.min(names.len().saturating_sub(label.len()));
        if start < free_from || label.len() > names.len() {
            continue;
        }
        axis[at] = cross;
        names[start..start + label.len()].copy_from_slice(&label);
        free_from = start + label.len() + 1;
    }
    let line: String = axis.into_iter().collect();
    let names: String = names.into_iter().collect();
    [format!("{}{corner}{line}", " ".repeat(margin)), names.trim_end().to_owned()]
}

fn legend(chart: &Chart, canvas: &Canvas) -> Vec<String> {
    let line = |(place, series): (usize, &Series)| {
        let mark = if is_braille(chart, canvas) {
            coloured('━', place, canvas)
        } else {
            mark(place, chart, canvas)
        };
        let room = canvas.width.max(LEAST_WIDTH) - 4;
        let label: String = series.label.chars().take(room).collect();
        format!("  {mark} {label}")
    };
    chart.series.iter().enumerate().map(line).collect()
}

/// The dot that is nearest to a place from 0 to 1.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "a place on a screen"
)]
fn nearest(place: f64, last: usize) -> usize {
    (place * last as f64).round() as usize
}

#[expect(clippy::cast_precision_loss, reason = "a place on a screen")]
fn fraction(step: usize, steps: usize) -> f64 {
    if steps == 0 { 0.0 } else { step as f64 / steps as f64 }
}

fn between(from: usize, to: usize, part: f64) -> usize {
    let way = nearest(part, from.abs_diff(to));
    if to < from { from - way } else { from + way }
}

#[cfg(test)]
mod tests {
    use super::super::{Point, ScaleKind};
    use super::*;

    fn chart(series: &[(&str, &[Point])], style: Style) -> Chart {
        let series = series
            .iter()
            .map(|(label, points)| Series { label: (*label).to_owned(), points: points.to_vec() });
        Chart {
            title: "loss by step".to_owned(),
            x_label: "step".to_owned(),
            x_kind: ScaleKind::Linear,
            x_named: Vec::new(),
            y_kind: ScaleKind::Linear,
            style,
            series: series.collect(),
        }
    }

    const PLAIN: Canvas = Canvas { width: 40, height: 6, colour: false, unicode: false };

    #[test]
    fn several_curves_have_their_marks_in_ascii() {
        let falling: &[Point] = &[(0.0, 3.0), (10.0, 1.0)];
        let flat: &[Point] = &[(0.0, 1.0), (10.0, 1.0)];
        let text = terminal(&chart(&[("a", falling), ("b", flat)], Style::Curves), &PLAIN);
        insta::assert_snapshot!(text, @r"
        loss by step
        3 +oooo
          |    ooooooo
        2 +           ooooooo
          |                  ooooooo
          |                         ooooooo
        1 +xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxoooo
          ++-----------------+----------------+
           0                 5               10
                           step
          o a
          x b
        ");
        assert!(text.is_ascii());
    }

    #[test]
    fn one_curve_is_fine_where_the_terminal_shows_it() {
        let rising: Vec<Point> = (0..=20).map(|x| (f64::from(x), f64::from(x * x))).collect();
        let canvas = Canvas { unicode: true, ..PLAIN };
        insta::assert_snapshot!(terminal(&chart(&[("", &rising)], Style::Curves), &canvas), @r"
        loss by step
        400 ┤                              ⢀⡠⠔⠊
            │                           ⢀⡠⠒⠁
        200 ┤                        ⣀⠔⠊⠁
            │                   ⢀⡠⠔⠒⠉
            │            ⢀⣀⡠⠤⠒⠒⠉⠁
          0 ┤⣀⣀⣀⣀⡠⠤⠤⠤⠤⠔⠒⠉⠁
            └┬────────────────┬───────────────┬
             0               10              20
                            step
        ");
        let dots = terminal(&chart(&[("", &rising[..3])], Style::Dots), &canvas);
        assert_eq!(dots.matches('●').count(), 3, "{dots}");
    }

    #[test]
    fn colour_only_adds_to_the_same_lines() {
        let curves = chart(&[("a", &[(0.0, 1.0), (1.0, 2.0)]), ("b", &[(0.0, 2.0)])], Style::Dots);
        let plain = terminal(&curves, &PLAIN);
        let coloured = terminal(&curves, &Canvas { colour: true, ..PLAIN });
        let stripped: String = coloured
            .split('\u{1b}')
            .map(|part| part.split_once('m').map_or(part, |it| it.1))
            .collect();
        assert!(coloured.contains("\u{1b}[36mo") && stripped == plain, "{stripped}\n{plain}");
    }

    #[test]
    fn nothing_is_too_small_or_too_odd() {
        let odd: &[Point] = &[(0.0, f64::MAX), (1.0, f64::MIN), (1.0, 0.0)];
        for (width, height) in [(0, 0), (1, 1), (31, 2), (200, 60)] {
            for points in [odd, &[], &[(0.0, 0.0)]] {
                let canvas = Canvas { width, height, colour: true, unicode: true };
                let text = terminal(&chart(&[("a", points)], Style::Curves), &canvas);
                assert!(text.lines().count() > 4, "{text}");
            }
        }
    }
}
