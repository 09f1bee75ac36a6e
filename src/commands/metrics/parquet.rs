//! Rows of metrics as a Parquet file, which pandas, `DuckDB` and the like read: a part of the rows at a time.

use std::io::{self, Write};
use std::sync::Arc;

use parquet::data_type::{ByteArray, ByteArrayType, DataType, DoubleType, Int32Type, Int64Type};
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;
use parquet::file::writer::{SerializedFileWriter, SerializedRowGroupWriter};
use parquet::schema::parser::parse_message_type;

use crate::results::MetricRow;

/// How many rows are one row group of the file, and held in memory.
const GROUP: usize = 64 * 1024;
/// The columns, as in CSV. Signed numbers: not every reader knows others.
const COLUMNS: &str = "message metrics {
    REQUIRED BYTE_ARRAY task (STRING);
    REQUIRED INT32 trial;
    REQUIRED INT32 attempt;
    OPTIONAL INT64 step;
    OPTIONAL DOUBLE time;
    REQUIRED BYTE_ARRAY metric (STRING);
    OPTIONAL DOUBLE value;
}";

/// Writes rows as they come.
pub(super) struct ParquetRows<W: Write + Send> {
    /// Where it is written to, until something is: who is told of a mistake wants no file.
    out: Option<W>,
    file: Option<SerializedFileWriter<W>>,
    rows: Vec<MetricRow>,
}

impl<W: Write + Send> ParquetRows<W> {
    pub(super) fn new(out: W) -> Self {
        Self { out: Some(out), file: None, rows: Vec::new() }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rows.is_empty() && self.file.is_none()
    }

    pub(super) fn row(&mut self, row: MetricRow) -> io::Result<()> {
        self.rows.push(row);
        if self.rows.len() < GROUP { Ok(()) } else { self.group().map_err(io_error) }
    }

    /// Writes what is left, and the file's end, without which it is none.
    pub(super) fn end(mut self) -> io::Result<()> {
        self.group().map_err(io_error)?;
        let file = self.file().map_err(io_error)?;
        file.finish().map_err(io_error)?;
        file.inner_mut().flush()
    }

    fn file(&mut self) -> Result<&mut SerializedFileWriter<W>, ParquetError> {
        if let Some(out) = self.out.take() {
            let schema = Arc::new(parse_message_type(COLUMNS)?);
            let properties = Arc::new(WriterProperties::new());
            self.file = Some(SerializedFileWriter::new(out, schema, properties)?);
        }
        let closed = || ParquetError::General("the file could not be begun".to_owned());
        self.file.as_mut().ok_or_else(closed)
    }

    fn group(&mut self) -> Result<(), ParquetError> {
        let rows = std::mem::take(&mut self.rows);
        if rows.is_empty() {
            return Ok(());
        }
        let mut group = self.file()?.next_row_group()?;
        let text = |text: &String| ByteArray::from(text.as_str());
        column::<ByteArrayType, _>(&mut group, rows.iter().map(|row| Some(text(&row.task))))?;
        let number = u32::cast_signed;
        column::<Int32Type, _>(&mut group, rows.iter().map(|row| Some(number(row.trial))))?;
        column::<Int32Type, _>(&mut group, rows.iter().map(|row| Some(number(row.attempt))))?;
        column::<Int64Type, _>(&mut group, rows.iter().map(|row| row.step.map(u64::cast_signed)))?;
        column::<DoubleType, _>(&mut group, rows.iter().map(|row| row.time))?;
        column::<ByteArrayType, _>(&mut group, rows.iter().map(|row| Some(text(&row.metric))))?;
        column::<DoubleType, _>(&mut group, rows.iter().map(|row| row.value))?;
        group.close().map(drop)
    }
}

/// Writes the next column of a group: the values that are there, and which they are.
fn column<T: DataType, W: Write + Send>(
    group: &mut SerializedRowGroupWriter<'_, W>,
    cells: impl Iterator<Item = Option<T::T>>,
) -> Result<(), ParquetError> {
    let missing = || ParquetError::General("there are more columns than the file has".to_owned());
    let mut column = group.next_column()?.ok_or_else(missing)?;
    let (mut values, mut levels) = (Vec::new(), Vec::new());
    for cell in cells {
        levels.push(i16::from(cell.is_some()));
        values.extend(cell);
    }
    column.typed::<T>().write_batch(&values, Some(&levels), None)?;
    column.close()
}

fn io_error(error: ParquetError) -> io::Error {
    match error {
        ParquetError::External(inner) => match inner.downcast::<io::Error>() {
            Ok(error) => *error,
            Err(other) => io::Error::other(other.to_string()),
        },
        other => io::Error::other(other),
    }
}
