//! Prints rows of metrics as they are read: there may be more than memory holds.

use std::io::{self, Write};

use serde_json::json;

use super::parquet::ParquetRows;
use super::{MetricsFormat, Search};
use crate::report::{escape, metric_csv_row, metric_csv_titles};
use crate::results::MetricRow;

/// The rows of one call.
pub(super) enum RowPrinter<W: Write + Send> {
    Text(TextRows<W>),
    Parquet(ParquetRows<W>),
}

impl<W: Write + Send> RowPrinter<W> {
    pub(super) fn new(out: W, format: MetricsFormat, id: String) -> Self {
        match format {
            MetricsFormat::Parquet => Self::Parquet(ParquetRows::new(out)),
            MetricsFormat::Json => Self::Text(TextRows { out, is_json: true, id, n_rows: 0 }),
            MetricsFormat::Csv | MetricsFormat::Table => {
                Self::Text(TextRows { out, is_json: false, id, n_rows: 0 })
            }
        }
    }

    pub(super) fn row(&mut self, row: MetricRow) -> io::Result<()> {
        match self {
            Self::Text(rows) => rows.row(&row),
            Self::Parquet(rows) => rows.row(row),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        match self {
            Self::Text(rows) => rows.n_rows == 0,
            Self::Parquet(rows) => rows.is_empty(),
        }
    }

    pub(super) fn end(self, search: &Search<'_>) -> io::Result<()> {
        match self {
            Self::Text(rows) => rows.end(search),
            Self::Parquet(rows) => rows.end(),
        }
    }
}

/// CSV or JSON.
pub(super) struct TextRows<W> {
    out: W,
    is_json: bool,
    id: String,
    n_rows: usize,
}

impl<W: Write> TextRows<W> {
    fn row(&mut self, row: &MetricRow) -> io::Result<()> {
        if self.n_rows == 0 {
            self.begin()?;
        } else if self.is_json {
            self.out.write_all(b",")?;
        }
        self.n_rows += 1;
        if self.is_json {
            return escape::write_json(&mut self.out, row);
        }
        writeln!(self.out, "{}", escape::escape(&metric_csv_row(row)))
    }

    fn begin(&mut self) -> io::Result<()> {
        if self.is_json {
            return write!(self.out, "{{\"schema\":1,\"id\":{},\"rows\":[", json!(self.id));
        }
        writeln!(self.out, "{}", metric_csv_titles())
    }

    fn end(mut self, search: &Search<'_>) -> io::Result<()> {
        if self.n_rows == 0 {
            self.begin()?;
        }
        if self.is_json {
            self.out.write_all(b"],\"warnings\":")?;
            escape::write_json(&mut self.out, &search.warnings)?;
            self.out.write_all(b",\"redone\":")?;
            escape::write_json(&mut self.out, &search.redone)?;
            self.out.write_all(b"}\n")?;
        }
        self.out.flush()
    }
}
