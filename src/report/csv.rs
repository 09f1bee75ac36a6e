//! Lines of comma-separated values, as RFC 4180 has them.

/// One line, without its end.
#[must_use]
pub fn csv_line<'a>(cells: impl IntoIterator<Item = &'a str>) -> String {
    cells.into_iter().map(cell).collect::<Vec<_>>().join(",")
}

fn cell(text: &str) -> String {
    if text.contains(['"', ',', '\n', '\r']) {
        format!("\"{}\"", text.replace('"', "\"\""))
    } else {
        text.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_separates_is_quoted() {
        assert_eq!(
            csv_line(["a", "", "b,c", "d \"e\"", "f\ng"]),
            "a,,\"b,c\",\"d \"\"e\"\"\",\"f\ng\""
        );
    }
}
