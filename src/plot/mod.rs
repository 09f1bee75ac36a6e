//! Charts: values → what is drawn, in a terminal or as a picture. Pure.

mod scale;
mod svg;
mod terminal;
mod thinned;

pub use scale::{Scale, ScaleKind, Tick};
pub use svg::svg;
pub use terminal::{Canvas, MARKS, terminal};
pub use thinned::Thinned;

/// A point: what is to the right, and what is above.
pub type Point = (f64, f64);

/// One chart.
#[derive(Clone, Debug, PartialEq)]
pub struct Chart {
    /// What is drawn.
    pub title: String,
    /// The name of the horizontal axis.
    pub x_label: String,
    /// How that axis divides.
    pub x_kind: ScaleKind,
    /// The values that are named along it; round ones if there are none.
    pub x_named: Vec<f64>,
    /// How the vertical axis divides.
    pub y_kind: ScaleKind,
    /// Whether points are joined.
    pub style: Style,
    /// In the order of the legend.
    pub series: Vec<Series>,
}

/// How points are drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// Joined: a value over steps.
    Curves,
    /// Each for itself: a parameter against a metric.
    Dots,
}

/// What has one colour.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Series {
    /// What the legend says.
    pub label: String,
    /// Finite ones, from left to right.
    pub points: Vec<Point>,
}

impl Chart {
    fn scales(&self) -> (Scale, Scale) {
        let points = || self.series.iter().flat_map(|series| &series.points);
        let x = Scale::over(self.x_kind.clone(), points().map(|(x, _)| *x));
        let y = Scale::over(self.y_kind.clone(), points().map(|(_, y)| *y));
        match self.style {
            Style::Curves => (x, y),
            Style::Dots => (x.with_room(), y.with_room()),
        }
    }

    /// What is named along the horizontal axis.
    fn x_ticks(&self, x: &Scale, wanted: usize) -> Vec<Tick> {
        if self.x_named.is_empty() { x.ticks(wanted) } else { x.named(&self.x_named) }
    }
}
