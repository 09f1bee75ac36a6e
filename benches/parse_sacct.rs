//! Measures how fast `sacct` output is read: `cargo bench --bench parse_sacct -- FILE`.
#![expect(clippy::disallowed_methods, reason = "a measurement needs the clock")]

use std::time::Instant;

use nemo_slurm::slurm::parse::account;

fn main() {
    // Cargo itself adds `--bench`.
    let Some(path) = std::env::args().skip(1).find(|word| !word.starts_with("--")) else {
        println!("give the path of a file with what `sacct` printed for the client");
        return;
    };
    let output = std::fs::read(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
    for _ in 0..3 {
        measure("one by one", &output, |output| {
            account::rows(output).fold((0, 0), |(rows, unread), row| {
                if row.is_ok() { (rows + 1, unread) } else { (rows, unread + 1) }
            })
        });
        measure("kept", &output, |output| {
            let parsed = account::parse(output);
            (parsed.rows.len(), parsed.unread.len())
        });
    }
}

fn measure(way: &str, output: &[u8], read: impl FnOnce(&[u8]) -> (usize, usize)) {
    let start = Instant::now();
    let (rows, unread) = read(output);
    let seconds = start.elapsed().as_secs_f64();
    #[expect(clippy::cast_precision_loss, reason = "for reading by people")]
    let (lines, bytes) = ((rows + unread) as f64, output.len() as f64);
    println!(
        "{way}: {:.2} million lines/s, {:.0} MB/s ({rows} rows, {unread} unread)",
        lines / seconds / 1e6,
        bytes / seconds / 1e6,
    );
}
