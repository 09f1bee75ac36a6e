//! Lightning's `metrics.csv`: a column for each metric, and one for the step. Most cells of a line are empty.

use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;

use nemo_core::open;

use super::{LeftOut, Take, WrittenValue};

/// A longer line is none of this file.
const LONGEST_LINE: u64 = 1 << 20;
/// What tells where a line belongs, in the order of preference.
const STEPS: [&str; 3] = ["step", "global_step", "epoch"];
/// What is no metric.
const NO_METRICS: [&str; 4] = ["step", "global_step", "epoch", "time"];

/// Calls a function with each value of a file. One without a column for the step is not Lightning's.
pub(super) fn each(path: &Path, take: Take<'_>) -> io::Result<LeftOut> {
    each_cell(&mut BufReader::with_capacity(64 * 1024, open::to_read(path)?), take)
}

/// The same for any input. A torn last line is being written.
pub fn each_cell(input: &mut impl BufRead, take: Take<'_>) -> io::Result<LeftOut> {
    let Some(titles) = line(input)? else { return Ok(Vec::new()) };
    let place = STEPS.iter().find_map(|step| titles.iter().position(|title| title == step));
    let Some(step_column) = place else { return Ok(Vec::new()) };
    let mut damaged = 0;
    while let Some(cells) = line(input)? {
        if cells.len() != titles.len() {
            damaged += usize::from(cells != [""]);
            continue;
        }
        let step = cells[step_column].parse::<f64>().ok().filter(|step| *step >= 0.0);
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a step")]
        let step = step.map(|step| step as u64);
        for (title, cell) in titles.iter().zip(&cells) {
            if cell.is_empty() || NO_METRICS.contains(&title.as_str()) {
                continue;
            }
            // A text is no value of a metric.
            let Ok(number) = cell.parse::<f64>() else { continue };
            let value = number.is_finite().then_some(number);
            take(WrittenValue { metric: title.clone(), step, time: None, value })?;
        }
    }
    Ok(super::damaged(damaged, "line").into_iter().collect())
}

/// The cells of the next whole line.
fn line(input: &mut impl BufRead) -> io::Result<Option<Vec<String>>> {
    let mut bytes = Vec::new();
    (&mut *input).take(LONGEST_LINE).read_until(b'\n', &mut bytes)?;
    if bytes.pop() != Some(b'\n') {
        return Ok(None);
    }
    let text = String::from_utf8_lossy(&bytes);
    Ok(Some(cells(text.trim_end_matches('\r'))))
}

fn cells(line: &str) -> Vec<String> {
    let (mut cells, mut cell, mut is_quoted) = (Vec::new(), String::new(), false);
    let mut characters = line.chars().peekable();
    while let Some(c) = characters.next() {
        match c {
            '"' if is_quoted && characters.peek() == Some(&'"') => {
                characters.next();
                cell.push('"');
            }
            '"' => is_quoted = !is_quoted,
            ',' if !is_quoted => cells.push(std::mem::take(&mut cell)),
            c => cell.push(c),
        }
    }
    cells.push(cell);
    cells
}
