//! Tables that fit the terminal: empty columns are left out, texts broken at blanks, columns left out that matter
//! least, and only then names elided.

use comfy_table::{Cell, Color, ContentArrangement};

use super::Page;
use super::escape::escape_line;
use super::fit::{elide, length, wrap};

/// Between two columns.
const GAP: usize = 2;
/// A word is elided before it makes its column wider than this, where the table does not fit.
const LONGEST_WORD: usize = 28;
/// No name is elided to less.
const LEAST: usize = 8;

/// What may become of a column where there is no room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    /// Stays whole as long as anything else can give way.
    Whole,
    /// Is broken at blanks.
    Words,
    /// Is left out; those of lower rank first.
    Spare(u8),
}

/// A text, perhaps coloured.
#[derive(Clone, Debug)]
pub(super) struct Item {
    pub(super) text: String,
    pub(super) colour: Option<Color>,
}

impl<T: ToString> From<T> for Item {
    fn from(text: T) -> Self {
        Self { text: escape_line(&text.to_string()).into_owned(), colour: None }
    }
}

struct Column {
    title: String,
    shape: Shape,
    items: Vec<Item>,
}

/// A table before it is laid out.
pub(super) struct Grid {
    columns: Vec<Column>,
}

impl Grid {
    pub(super) fn new(columns: &[(&str, Shape)]) -> Self {
        let column = |(title, shape): &(&str, Shape)| Column {
            title: title.to_uppercase(),
            shape: *shape,
            items: Vec::new(),
        };
        Self { columns: columns.iter().map(column).collect() }
    }

    /// Adds a row of as many items as there are columns.
    pub(super) fn row(&mut self, items: impl IntoIterator<Item = Item>) {
        for (column, item) in self.columns.iter_mut().zip(items) {
            column.items.push(item);
        }
    }

    /// Leaves columns out that say nothing.
    pub(super) fn without_empty(mut self) -> Self {
        let is_telling = |column: &Column| column.items.iter().any(|item| !item.text.is_empty());
        if self.columns.iter().any(is_telling) {
            self.columns.retain(is_telling);
        }
        self
    }

    /// The width of the table if nothing limits it.
    pub(super) fn natural(&self) -> usize {
        sum(self.columns.iter().map(Column::natural))
    }

    /// The table's lines, the header first. Those without a column of words are one line a row.
    pub(super) fn lines(mut self, page: &Page) -> Vec<String> {
        let widths = match page.width {
            Some(width) => self.fit(width),
            None => self.columns.iter().map(Column::natural).collect(),
        };
        let mut table = super::table::table(&[]);
        table.set_content_arrangement(ContentArrangement::Disabled);
        if !page.colour {
            table.force_no_tty();
        }
        let rows = self.columns.first().map_or(0, |column| column.items.len());
        table.set_header(
            self.columns
                .iter()
                .zip(&widths)
                .map(|(column, width)| Cell::new(elide(&column.title, *width))),
        );
        for row in 0..rows {
            let cell = |(column, width): (&Column, &usize)| column.cell(row, *width);
            table.add_row(self.columns.iter().zip(&widths).map(cell).collect::<Vec<_>>());
        }
        for column in table.column_iter_mut() {
            column.set_padding((0, 2));
        }
        super::table::text(&table).lines().map(str::to_owned).collect()
    }

    /// The widths of the columns that stay.
    fn fit(&mut self, width: usize) -> Vec<usize> {
        while sum(self.columns.iter().map(Column::least)) > width {
            let spare = |column: &Column| match column.shape {
                Shape::Spare(rank) => Some(rank),
                Shape::Whole | Shape::Words => None,
            };
            let Some(rank) = self.columns.iter().filter_map(spare).min() else { break };
            self.columns.retain(|column| column.shape != Shape::Spare(rank));
        }
        let natural = self.columns.iter().map(Column::natural).collect();
        let least: Vec<usize> = self.columns.iter().map(Column::least).collect();
        let widths = shrink(natural, &least, width);
        shrink(widths, &vec![LEAST; least.len()], width)
    }
}

impl Column {
    fn natural(&self) -> usize {
        self.items.iter().map(|item| length(&item.text)).fold(length(&self.title), usize::max)
    }

    /// The width that it can have without harm.
    fn least(&self) -> usize {
        let words = self.items.iter().flat_map(|item| item.text.split_whitespace());
        match self.shape {
            Shape::Whole | Shape::Spare(_) => self.natural(),
            Shape::Words => {
                words.map(length).fold(length(&self.title), usize::max).min(LONGEST_WORD)
            }
        }
    }

    fn cell(&self, row: usize, width: usize) -> Cell {
        let Some(item) = self.items.get(row) else { return Cell::new("") };
        let text = match self.shape {
            Shape::Words if length(&item.text) > width => {
                let words: Vec<String> =
                    item.text.split_whitespace().map(|word| elide(word, width)).collect();
                wrap(&words.join(" "), width, 0).join("\n")
            }
            Shape::Words | Shape::Whole | Shape::Spare(_) => elide(&item.text, width),
        };
        let cell = Cell::new(text);
        match item.colour {
            Some(colour) => cell.fg(colour),
            None => cell,
        }
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
            ("id", Shape::Whole),
            ("job", Shape::Spare(0)),
            ("none", Shape::Whole),
            ("parameters", Shape::Words),
            ("metrics", Shape::Words),
        ];
        let mut grid = Grid::new(&columns);
        for (id, parameters) in [("0", "lr=0.1 width=32"), ("1", "lr=0.01 width=128")] {
            let row = [id, "1234_0", "", parameters, "loss=0.25 val_accuracy=0.91"];
            grid.row(row.map(Item::from));
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
        0   lr=0.1    loss….25
            width=32  val_….91
        1   lr=0.01   loss….25
            widt…128  val_….91
        ");
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
