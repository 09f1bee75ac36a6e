//! Where the time went, as tables of at most 80 columns.

use comfy_table::CellAlignment;

use super::table::{table, text};
use crate::goodput::{Account, Goodput, LossSum, Micros, TaskGoodput, TimeParts, TrialGoodput};

/// How many trials of a task are shown one by one.
const SHOWN_TRIALS: usize = 50;
/// How much of a name fits.
const NAME: usize = 19;

/// A title, and the part that stands below it.
type PartColumn = (&'static str, fn(&TimeParts) -> Micros);

/// The parts in the order of their columns, and their short titles.
const COLUMNS: [PartColumn; 8] = [
    ("wait", |parts| parts.waiting),
    ("queue", |parts| parts.queued),
    ("start", |parts| parts.starting),
    ("work", |parts| parts.productive),
    ("save", |parts| parts.saving),
    ("redo", |parts| parts.repeated),
    ("restart", |parts| parts.restarting),
    ("hung", |parts| parts.hung),
];

/// A headline, where the time went, and what was lost to what.
#[must_use]
pub fn goodput_table(goodput: &Goodput, all_trials: bool) -> String {
    let mut blocks = vec![headline(goodput), times(goodput, all_trials)];
    if !goodput.total.losses.is_empty() {
        blocks.push(losses(goodput));
    }
    blocks.join("\n\n")
}

fn headline(goodput: &Goodput) -> String {
    let total = &goodput.total;
    let unit = goodput.unit.as_str();
    let money = goodput.price.map_or_else(String::new, |price| {
        format!("\n{:.2} lost at {price:.2} per {}", total.lost * price, goodput.unit.one())
    });
    let share = if total.held > 0.0 {
        format!(" of {} held ({})", number(total.held), percent(Some(total.lost / total.held)))
    } else {
        String::new()
    };
    format!(
        "{}: ETTR {}\n{} {unit} lost{share}{money}",
        goodput.id,
        percent(total.ettr),
        number(total.lost)
    )
}

fn times(goodput: &Goodput, all_trials: bool) -> String {
    let columns: Vec<_> = COLUMNS.iter().filter(|(_, of)| of(&goodput.total.parts) > 0).collect();
    let mut header = vec!["", "ettr", "all"];
    header.extend(columns.iter().map(|(title, _)| *title));
    let mut table = table(&header);
    for (place, column) in table.column_iter_mut().enumerate() {
        column.set_padding((0, 1));
        if place > 0 {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    let row = |name: String, account: &Account| {
        let mut row = vec![shortened(&name), percent(account.ettr), short(account.parts.whole())];
        row.extend(columns.iter().map(|(_, of)| short(of(&account.parts))));
        row
    };
    for task in &goodput.tasks {
        table.add_row(row(task.name.clone(), &task.account));
        for trial in shown(task, all_trials) {
            table.add_row(row(format!("  {}/{}", task.name, trial.index), &trial.account));
        }
    }
    if goodput.tasks.len() > 1 {
        table.add_row(row("total".to_owned(), &goodput.total));
    }
    let hidden = if all_trials { 0 } else { goodput.tasks.iter().map(hidden).sum() };
    let more = if hidden > 0 { "\n(`--trials` shows every trial)" } else { "" };
    format!("{}{more}{}", text(&table), unknown_start(goodput))
}

/// How much of the work may have been the start of programs.
fn unknown_start(goodput: &Goodput) -> String {
    match goodput.total.unknown_start {
        0 => String::new(),
        time => format!(
            "\n({} of the work lie before a program's first step or checkpoint.\nHow much of that was its start is not known.)",
            short(time)
        ),
    }
}

/// A task of one trial says it all in its own row.
fn shown(task: &TaskGoodput, all: bool) -> &[TrialGoodput] {
    match task.trials.len() {
        1 => &[],
        n if all || n <= SHOWN_TRIALS => &task.trials,
        _ => &[],
    }
}

fn hidden(task: &TaskGoodput) -> usize {
    if task.trials.len() > SHOWN_TRIALS { task.trials.len() } else { 0 }
}

fn losses(goodput: &Goodput) -> String {
    let unit = goodput.unit.as_str();
    let mut header = vec!["lost to", "times", "time", "queued", unit];
    header.extend(goodput.price.map(|_| "cost"));
    let mut table = table(&header);
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    let row = |lost: &LossSum| {
        let times = if lost.loss.times == 0 { String::new() } else { lost.loss.times.to_string() };
        let mut row = vec![
            lost.reason.as_str().to_owned(),
            times,
            short(lost.loss.held),
            short(lost.loss.queued),
            number(lost.hours),
        ];
        row.extend(goodput.price.map(|price| format!("{:.2}", price * lost.hours)));
        row.into_iter().map(super::table::cell).collect::<Vec<_>>()
    };
    for lost in &goodput.total.losses {
        table.add_row(row(lost));
    }
    text(&table)
}

/// A name that leaves room for the numbers. Of a long one the end tells more: the trial is there.
fn shortened(name: &str) -> String {
    let length = name.chars().count();
    if length <= NAME {
        return name.to_owned();
    }
    let end: String = name.chars().skip(length - NAME + 1).collect();
    format!("…{end}")
}

fn percent(ratio: Option<f64>) -> String {
    ratio.map_or_else(|| "–".to_owned(), |ratio| format!("{:.1}%", ratio * 100.0))
}

/// `0.031`, `12.4`, `8314`: three digits that count.
fn number(number: f64) -> String {
    match number {
        n if n >= 100.0 => format!("{n:.0}"),
        n if n >= 10.0 => format!("{n:.1}"),
        n if n >= 1.0 || n <= 0.0 => format!("{n:.2}"),
        n => format!("{n:.3}"),
    }
}

/// A length of time in at most five characters: `8.2s`, `42s`, `83m`, `5.2h`, `130d`.
fn short(micros: Micros) -> String {
    #[expect(clippy::cast_precision_loss, reason = "for people")]
    let seconds = micros as f64 / 1e6;
    let (value, unit) = match seconds {
        s if s <= 0.0 => return "·".to_owned(),
        s if s < 100.0 => (s, "s"),
        s if s < 6000.0 => (s / 60.0, "m"),
        s if s < 360_000.0 => (s / 3600.0, "h"),
        s => (s / 86_400.0, "d"),
    };
    if value < 9.95 { format!("{value:.1}{unit}") } else { format!("{value:.0}{unit}") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::goodput::{Ledger, Loss, LossReason, TrialLedger, Unit, goodput};

    #[test]
    fn lengths_of_time_are_short() {
        let check = |seconds: f64, expected| {
            #[expect(clippy::cast_possible_truncation, reason = "a test")]
            let micros = (seconds * 1e6) as Micros;
            assert_eq!(short(micros), expected);
        };
        check(0.0, "·");
        check(0.04, "0.0s");
        check(9.97, "10s");
        check(99.0, "99s");
        check(200.0, "3.3m");
        check(18_600.0, "5.2h");
        check(1e6, "12d");
        check(1e8, "1157d");
    }

    #[test]
    fn the_widest_tables_fit_80_columns() {
        let long = 359_000 * 1_000_000;
        let parts = TimeParts {
            waiting: long,
            queued: long,
            starting: long,
            productive: long,
            saving: long,
            repeated: long,
            restarting: long,
            hung: long,
        };
        let loss = Loss { times: 99_999, held: long, queued: long };
        let losses = std::collections::BTreeMap::from([(LossReason::Asked, loss)]);
        let ledger = Ledger { parts, losses, unknown_start: long, ..Ledger::default() };
        let trials = vec![
            TrialLedger { index: 0, ledger: ledger.clone() },
            TrialLedger { index: 1, ledger },
        ];
        let tasks = vec![("a-task-with-a-very-long-name".to_owned(), 10_000, trials)];
        let sums = goodput("x".to_owned(), Unit::Node, Some(99.0), tasks);
        let printed = goodput_table(&sums, true);
        assert!(printed.lines().all(|line| line.chars().count() <= 80), "{printed}");
        assert!(printed.contains("its start is not known"), "{printed}");
    }

    #[test]
    fn long_names_keep_their_end() {
        assert_eq!(shortened("train/3"), "train/3");
        assert_eq!(shortened("a-very-long-name-of-a-task/17"), "…-name-of-a-task/17");
        assert_eq!(shortened("a-very-long-name-of-a-task/17").chars().count(), NAME);
    }
}
