//! `plot`: curves of a metric over steps, and parameters against a metric, in the terminal or as a picture.

mod curves;
mod parameters;

use std::path::{Path, PathBuf};

use clap::Args;
use nemo_core::durable;
use serde_json::json;

use self::curves::{Curves, chart, series_json};
use self::parameters::{parameter_charts, parameter_json};
use super::App;
use crate::clock;
use crate::error::{CommandError, ExitCode, IoResultExt};
use crate::humanize::count;
use crate::plot::{Canvas, Chart, MARKS, ScaleKind, svg, terminal};
use crate::report::{Page, escape, out, out_json, say};

/// `plot`.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  nemo-slurm plot                        # search.metric of the newest, over its steps\n  \
    nemo-slurm plot @/train/3 @/train/7 --metric val_loss\n  \
    nemo-slurm plot digits --x lr --x width # parameters against the best value\n  \
    nemo-slurm plot digits --svg loss.svg"
)]
pub struct PlotArgs {
    /// EXPERIMENT[/TASK[/TRIALS]], one or several
    #[arg(value_name = "TARGET", default_value = "@")]
    pub targets: Vec<String>,
    /// This metric; without it `search.metric`, else the one that was reported first
    #[arg(long, value_name = "NAME")]
    pub metric: Option<String>,
    /// Plot the metric against this parameter instead of steps; may be given several times
    #[arg(long, value_name = "PARAM")]
    pub x: Vec<String>,
    /// Which value of each trial a parameter is drawn against
    #[arg(long, value_enum, default_value_t = PlottedValue::Best, requires = "x")]
    pub value: PlottedValue,
    /// Draw the metric on a logarithmic axis
    #[arg(long)]
    pub log_scale: bool,
    /// Write an SVG file instead of drawing in the terminal; `-` is standard output
    #[arg(long, value_name = "FILE")]
    pub svg: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// `--value`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum PlottedValue {
    /// The best one, by `search.goal` or by the metric's name.
    Best,
    /// The last one.
    Last,
}

impl PlottedValue {
    fn as_str(self) -> &'static str {
        match self {
            Self::Best => "best",
            Self::Last => "last",
        }
    }
}

/// The lines of a chart's inside.
const HEIGHT: usize = 16;
/// The width of a chart that no terminal shows.
const WIDTH: usize = 80;

/// Draws the metric of some targets.
pub(super) fn plot(app: &App, args: &PlotArgs) -> Result<ExitCode, CommandError> {
    let curves = Curves::read(app, &args.targets, args.metric.as_deref())?;
    let Some(metric) = &curves.metric else {
        return nothing(args, &curves);
    };
    let y_kind = y_kind_of(args);
    let drawn_here = args.svg.is_none() && !args.json;
    let charts = if args.x.is_empty() {
        vec![chart(&curves, metric, y_kind, if drawn_here { MARKS.len() } else { usize::MAX })]
    } else {
        parameter_charts(&curves, metric, &args.x, args.value, &y_kind)?
    };
    if let Some(path) = &args.svg {
        write_picture(path, &charts)?;
    }
    if args.json {
        let series = if args.x.is_empty() {
            series_json(&curves)
        } else {
            parameter_json(&curves, &args.x, args.value)
        };
        return out_json(&json!({
            "schema": 1, "metric": metric, "x": if args.x.is_empty() { json!("step") } else { json!(args.x) },
            "series": series, "warnings": curves.warnings,
        }));
    }
    if drawn_here {
        let canvas = canvas(app);
        let texts: Vec<String> = charts.iter().map(|chart| terminal(chart, &canvas)).collect();
        out(&texts.join("\n\n"))?;
    }
    remarks(&curves, args, drawn_here);
    if y_kind_of(args) == ScaleKind::Logarithmic {
        say_unplaced(&charts);
    }
    Ok(ExitCode::Fine)
}

fn y_kind_of(args: &PlotArgs) -> ScaleKind {
    if args.log_scale { ScaleKind::Logarithmic } else { ScaleKind::Linear }
}

/// Values that have no place on a logarithmic axis.
fn say_unplaced(charts: &[Chart]) {
    let points = charts.iter().flat_map(|chart| &chart.series).flat_map(|series| &series.points);
    let unplaced = points.filter(|(_, y)| *y <= 0.0).count();
    if unplaced > 0 {
        let values = count(unplaced, "value");
        say(&format!("{values} of 0 or less: no place on a logarithmic axis, left out."));
    }
}

fn nothing(args: &PlotArgs, curves: &Curves) -> Result<ExitCode, CommandError> {
    if args.json {
        return out_json(&json!({
            "schema": 1, "metric": null, "x": "step", "series": [], "warnings": curves.warnings,
        }));
    }
    remarks(curves, args, false);
    say("No metric was reported.");
    Ok(ExitCode::Fine)
}

/// What the chart itself does not tell.
fn remarks(curves: &Curves, args: &PlotArgs, drawn_here: bool) {
    for warning in &curves.warnings {
        say(&format!("warning: {warning}"));
    }
    let n = curves.trials.len();
    if drawn_here && args.x.is_empty() && n > MARKS.len() {
        say(&format!(
            "The {} of {n} trials with the best last value are drawn; `--svg FILE` and `--json` have all.",
            MARKS.len()
        ));
    }
    let left_out: usize = curves.trials.iter().map(|trial| trial.not_finite).sum();
    if left_out > 0 {
        say(&format!("{} that are no finite numbers are left out.", count(left_out, "value")));
    }
}

fn write_picture(path: &Path, charts: &[Chart]) -> Result<(), CommandError> {
    let text = svg(charts);
    if path == Path::new("-") {
        return out(text.trim_end()).map(drop);
    }
    durable::replace_file(path, text.as_bytes()).at("write", path)?;
    say(&format!("Wrote {}", escape::escape_line(&path.to_string_lossy())));
    Ok(())
}

fn canvas(app: &App) -> Canvas {
    let page = Page::here(clock::now());
    Canvas {
        width: page.width.unwrap_or(WIDTH),
        height: HEIGHT,
        colour: page.colour,
        unicode: is_utf8(app),
    }
}

/// Whether the locale's characters are those of UTF-8.
fn is_utf8(app: &App) -> bool {
    let locale = ["LC_ALL", "LC_CTYPE", "LANG"].iter().find_map(|name| app.variable(name));
    let name = locale.map(|name| name.to_string_lossy().to_lowercase()).unwrap_or_default();
    name.ends_with("utf-8") || name.ends_with("utf8")
}
