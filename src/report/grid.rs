//! Tables that fit the terminal: empty columns are left out, texts broken at blanks, columns left out that matter
//! least, and only then names elided.

use comfy_table::Color;

use super::Page;
use super::escape::escape_line;
use super::fit::{broken, elide, length, shorten, wrap};

/// Between two columns.
const GAP: usize = 2;
/// A word is elided before it makes its column wider than this, where the table does not fit.
const LONGEST_WORD: usize = 28;
/// A column whose words may be broken is not made narrower than this before names are elided.
const LEAST_TEXT: usize = 14;
/// Columns from this rank on are left out only after texts that stay whole for long are broken.
const BREAKS_FIRST: u8 = 4;
/// No name is elided to less.
const LEAST: usize = 8;

/// What may become of a column where there is no room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ColumnFit {
    /// Stays whole as long as anything else can give way.
    Whole,
    /// Is broken at blanks; a word that is too long loses its middle, but no number does.
    Words,
    /// Is broken at blanks, and within a word that is too long: nothing of it is lost.
    Text,
    /// Stays whole while there is a column to leave out, then is broken at blanks.
    Late,
    /// Is left out; those of lower rank first.
    Spare(u8),
}

/// A text, perhaps coloured.
#[derive(Clone, Debug)]
pub(super) struct TextCell {
    pub(super) text: String,
    pub(super) colour: Option<Color>,
}

impl<T: ToString> From<T> for TextCell {
    fn from(text: T) -> Self {
        Self { text: escape_line(&text.to_string()).into_owned(), colour: None }
    }
}

struct Column {
    title: String,
    shape: ColumnFit,
    items: Vec<TextCell>,
}

/// A table before it is laid out.
pub(super) struct Grid {
    columns: Vec<Column>,
}

impl Grid {
    pub(super) fn new(columns: &[(&str, ColumnFit)]) -> Self {
        let columns = columns.iter().map(|(title, shape)| Column {
            title: title.to_uppercase(),
            shape: *shape,
            items: Vec::new(),
        });
        Self { columns: columns.collect() }
    }

    /// Adds a row of as many items as there are columns.
    pub(super) fn row(&mut self, items: impl IntoIterator<Item = TextCell>) {
        let mut items = items.into_iter();
        for column in &mut self.columns {
            let item = items.next();
            debug_assert!(item.is_some(), "a cell is missing: those after it would move");
            column.items.push(item.unwrap_or_else(|| TextCell::from("")));
        }
        debug_assert!(items.next().is_none(), "there are more cells than columns");
    }

    /// Leaves columns out that say nothing.
    pub(super) fn without_empty(mut self) -> Self {
        if self.columns.iter().any(Column::is_telling) {
            self.columns.retain(Column::is_telling);
        }
        self
    }

    /// The width of the table if nothing limits it.
    pub(super) fn natural(&self) -> usize {
        sum(self.columns.iter().map(Column::natural))
    }

    /// The table's lines, the header first. Those without a column of words are one line a row.
    pub(super) fn lines(self, page: &Page) -> Vec<String> {
        self.rows(page).concat()
    }

    /// The same, and at their end which columns had no room.
    pub(super) fn lines_telling(mut self, page: &Page) -> Vec<String> {
        let titles = |grid: &Self| -> Vec<String> {
            grid.columns.iter().map(|column| column.title.clone()).collect()
        };
        let all = titles(&self);
        if let Some(width) = page.width {
            self.fit(width);
        }
        let kept = titles(&self);
        let left_out: Vec<&str> =
            all.iter().filter(|title| !kept.contains(title)).map(String::as_str).collect();
        let mut lines = self.lines(page);
        if !left_out.is_empty() {
            let text = format!("No room for {}; --json has all.", left_out.join(", "));
            let text = wrap(&text, page.width.unwrap_or(usize::MAX), 0);
            lines.extend(text);
        }
        lines
    }

    /// The lines of each row, the header first.
    pub(super) fn rows(mut self, page: &Page) -> Vec<Vec<String>> {
        let widths = match page.width {
            Some(width) => self.fit(width),
            None => self.columns.iter().map(Column::natural).collect(),
        };
        // What is broken at blanks may be narrower than it was allowed to be.
        let widths: Vec<usize> =
            self.columns.iter().zip(&widths).map(|(column, width)| column.used(*width)).collect();
        let titles = self
            .columns
            .iter()
            .zip(&widths)
            .map(|(column, width)| vec![(elide(&column.title, *width), None)]);
        let mut rows = vec![laid_out(&titles.collect::<Vec<_>>(), &widths)];
        let n_rows = self.columns.first().map_or(0, |column| column.items.len());
        for row in 0..n_rows {
            let cells = self.columns.iter().zip(&widths);
            let cells = cells.map(|(column, width)| column.cell(row, *width, page.colour));
            rows.push(laid_out(&cells.collect::<Vec<_>>(), &widths));
        }
        rows
    }

    /// The rank of the column that is left out next.
    fn spare_rank(&self) -> Option<u8> {
        let ranks = self.columns.iter().filter_map(|column| match column.shape {
            ColumnFit::Spare(rank) => Some(rank),
            ColumnFit::Whole | ColumnFit::Words | ColumnFit::Text | ColumnFit::Late => None,
        });
        ranks.min()
    }

    /// The widths of the columns that stay.
    fn fit(&mut self, width: usize) -> Vec<usize> {
        while let Some(rank) = self.spare_rank() {
            // What matters more than whole texts is left out only where broken ones have no room either.
            let whole = if rank < BREAKS_FIRST { ColumnFit::Late } else { ColumnFit::Whole };
            if sum(self.columns.iter().map(|column| column.least(whole))) <= width {
                break;
            }
            self.columns.retain(|column| column.shape != ColumnFit::Spare(rank));
        }
        let natural = self.columns.iter().map(Column::natural).collect();
        let least = self.columns.iter().map(|column| column.least(ColumnFit::Whole));
        let least: Vec<usize> = least.collect();
        let widths = shrink(natural, &least, width);
        shrink(widths, &vec![LEAST; least.len()], width)
    }
}

impl Column {
    /// Whether it says anything.
    fn is_telling(&self) -> bool {
        self.items.iter().any(|item| !item.text.is_empty())
    }

    fn natural(&self) -> usize {
        self.items.iter().map(|item| length(&item.text)).fold(length(&self.title), usize::max)
    }

    /// The width that it can have without harm, where columns of this shape stay whole too.
    fn least(&self, whole: ColumnFit) -> usize {
        let words = self.items.iter().flat_map(|item| item.text.split_whitespace());
        match self.shape {
            ColumnFit::Whole | ColumnFit::Spare(_) => self.natural(),
            shape if shape == whole => self.natural(),
            shape => {
                let longest = if shape == ColumnFit::Text { LEAST_TEXT } else { LONGEST_WORD };
                words.map(length).fold(length(&self.title), usize::max).min(longest)
            }
        }
    }

    /// Whether it may have several lines in a row.
    fn is_broken(&self) -> bool {
        matches!(self.shape, ColumnFit::Words | ColumnFit::Text | ColumnFit::Late)
    }

    /// The width that its lines have where none may be wider than this.
    fn used(&self, width: usize) -> usize {
        if !self.is_broken() || self.natural() <= width {
            return width;
        }
        let lines = (0..self.items.len()).flat_map(|row| self.cell(row, width, false));
        let longest = lines.map(|(line, _)| length(&line)).max().unwrap_or(0);
        longest.max(length(&elide(&self.title, width)))
    }

    /// The lines of one item, each with its colour.
    fn cell(&self, row: usize, width: usize, in_colour: bool) -> Vec<StyledText> {
        let Some(item) = self.items.get(row) else { return Vec::new() };
        let lines = match self.shape {
            ColumnFit::Text if length(&item.text) > width => {
                let words = item.text.split_whitespace().map(|word| broken(word, width));
                wrap(&words.collect::<Vec<_>>().join(" "), width, 0)
            }
            ColumnFit::Words | ColumnFit::Late if length(&item.text) > width => {
                let words: Vec<String> =
                    item.text.split_whitespace().map(|word| shorten(word, width)).collect();
                wrap(&words.join(" "), width, 0)
            }
            _ if length(&item.text) > width => wrap(&shorten(&item.text, width), width, 0),
            _ => vec![item.text.clone()],
        };
        let colour = item.colour.filter(|_| in_colour);
        lines.into_iter().map(|line| (line, colour)).collect()
    }
}

/// A line of an item, and its colour.
type StyledText = (String, Option<Color>);

/// The lines of a row: as many as its longest item has, without blanks at their ends.
fn laid_out(row: &[Vec<StyledText>], widths: &[usize]) -> Vec<String> {
    let mut lines = Vec::new();
    let height = row.iter().map(Vec::len).max().unwrap_or(0).max(1);
    for place in 0..height {
        let mut line = String::new();
        let mut blanks = 0;
        for (item, width) in row.iter().zip(widths) {
            let (text, colour) =
                item.get(place).map_or(("", None), |(text, at)| (text.as_str(), *at));
            if !text.is_empty() {
                line.extend(std::iter::repeat_n(' ', blanks));
                blanks = 0;
                match colour {
                    Some(colour) => line.extend(["\x1b[", code(colour), "m", text, "\x1b[39m"]),
                    None => line.push_str(text),
                }
            }
            blanks += width.saturating_sub(length(text)) + GAP;
        }
        lines.push(line);
    }
    lines
}

/// A terminal's code for each colour that a table uses.
fn code(colour: Color) -> &'static str {
    match colour {
        Color::Green => "92",
        Color::Red => "91",
        Color::Cyan => "96",
        Color::Yellow => "93",
        _ => "39",
    }
}

fn sum(widths: impl Iterator<Item = usize>) -> usize {
    widths.map(|width| width + GAP).sum::<usize>().saturating_sub(GAP)
}

/// Takes from the widest, one by one, until all fit or none can give more.
fn shrink(mut widths: Vec<usize>, least: &[usize], width: usize) -> Vec<usize> {
    while sum(widths.iter().copied()) > width {
        let giving = widths.iter_mut().zip(least).filter(|(width, least)| **width > **least);
        let Some((widest, _)) = giving.max_by_key(|(width, _)| **width) else { break };
        *widest -= 1;
    }
    widths
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(width: Option<usize>) -> String {
        let columns = [
            ("id", ColumnFit::Whole),
            ("job", ColumnFit::Spare(0)),
            ("none", ColumnFit::Whole),
            ("parameters", ColumnFit::Words),
            ("metrics", ColumnFit::Words),
        ];
        let mut grid = Grid::new(&columns);
        for (id, parameters) in [("0", "lr=0.1 width=32"), ("1", "lr=0.01 width=128")] {
            let row = [id, "1234_0", "", parameters, "loss=0.25 val_accuracy=0.91"];
            grid.row(row.map(TextCell::from));
        }
        let page = Page { now: 0.0, width, colour: false };
        grid.without_empty().lines(&page).join("\n")
    }

    #[test]
    fn what_matters_least_gives_way_first() {
        insta::assert_snapshot!(lines(None), @"
        ID  JOB     PARAMETERS         METRICS
        0   1234_0  lr=0.1 width=32    loss=0.25 val_accuracy=0.91
        1   1234_0  lr=0.01 width=128  loss=0.25 val_accuracy=0.91
        ");
        insta::assert_snapshot!(lines(Some(50)), @"
        ID  JOB     PARAMETERS         METRICS
        0   1234_0  lr=0.1 width=32    loss=0.25
                                       val_accuracy=0.91
        1   1234_0  lr=0.01 width=128  loss=0.25
                                       val_accuracy=0.91
        ");
        insta::assert_snapshot!(lines(Some(40)), @"
        ID  PARAMETERS         METRICS
        0   lr=0.1 width=32    loss=0.25
                               val_accuracy=0.91
        1   lr=0.01 width=128  loss=0.25
                               val_accuracy=0.91
        ");
        insta::assert_snapshot!(lines(Some(33)), @"
        ID  PARAMETERS  METRICS
        0   lr=0.1      loss=0.25
            width=32    val_accuracy=0.91
        1   lr=0.01     loss=0.25
            width=128   val_accuracy=0.91
        ");
        insta::assert_snapshot!(lines(Some(20)), @"
        ID  PARA…ERS  METRICS
        0   lr=0.1    l…s=0.25
            width=32  v…y=0.91
        1   lr=0.01   l…s=0.25
            wi…h=128  v…y=0.91
        ");
    }

    #[test]
    fn only_a_page_that_wants_colour_gets_it() {
        let lines = |colour| {
            let mut grid = Grid::new(&[("state", ColumnFit::Whole), ("why", ColumnFit::Words)]);
            let state = TextCell { text: "failed".to_owned(), colour: Some(Color::Red) };
            grid.row([state, TextCell::from("a code")]);
            grid.lines(&Page { now: 0.0, width: Some(12), colour })
        };
        assert_eq!(lines(false), ["STATE   WHY", "failed  a", "        code"]);
        let coloured = ["STATE   WHY", "\x1b[91mfailed\x1b[39m  a", "        code"];
        assert_eq!(lines(true), coloured);
    }

    #[test]
    fn no_number_of_a_column_that_stays_whole_is_cut() {
        let mut grid = Grid::new(&[("name", ColumnFit::Whole), ("value", ColumnFit::Whole)]);
        grid.row(["validation_loss", "-1.234e-10"].map(TextCell::from));
        let lines = grid.lines(&Page { now: 0.0, width: Some(18), colour: false });
        assert_eq!(lines, ["NAME      VALUE", "vali…oss  -1.234e-", "          10"]);
    }

    #[test]
    fn no_line_is_wider_than_the_terminal_until_names_are_at_their_least() {
        for width in 22..80 {
            let table = lines(Some(width));
            let widest = table.lines().map(length).max().unwrap_or(0);
            assert!(widest <= width, "{width}:\n{table}");
        }
    }
}
