//! What is said of values that no program can be given, and of files with very many mistakes or very long lines.

use std::fmt::Write;

use super::*;

#[test]
fn a_program_can_be_given_only_so_much() {
    let value = |length| "x".repeat(length);
    let file = |length: usize| {
        format!("name = 'x'\n[task.t]\nrun = 'x'\nparams = {{ big = '{}' }}", value(length))
    };
    let variable = "NEMO_PARAM_BIG=".len() + 1;
    assert!(read(&file(128 * 1024 - variable)).is_ok());
    let said = read(&file(128 * 1024 - variable + 1)).unwrap_err();
    assert_eq!(said.0[0].key.as_deref(), Some("task.t.params.big"));
    assert!(said.0[0].message.contains("more than Linux passes to a program"), "{said}");
    let words = format!(
        "name = 'x'\n[task.t]\nrun = ['p', '{{a}}{{b}}']\nparams = {{ a = '{0}', b = '{0}' }}",
        value(70_000)
    );
    let said = read(&words).unwrap_err();
    assert_eq!(said.0[0].key.as_deref(), Some("task.t.run[1]"), "{said}");
    let many: String = (0..11).fold(String::new(), |mut all, n| {
        writeln!(all, "p{n} = '{}'", value(100_000)).unwrap();
        all
    });
    let said =
        read(&format!("name = 'x'\n[task.t]\nrun = 'x'\n[task.t.params]\n{many}")).unwrap_err();
    assert!(said.0[0].message.starts_with("the parameters of a trial have 11"), "{said}");
}

#[test]
fn ten_thousand_mistakes_on_one_line() {
    let items: Vec<String> = (0..10_000).map(|n| format!("'run-{n:06}'")).collect();
    let text =
        format!("name = 'x'\n[task.t]\nrun = 'a {{n}}'\nparams = {{ n = {} }}", items.join(","));
    let said = read(&text).unwrap_err();
    assert!(said.0.len() <= 100, "{}", said.0.len());
    let shown = said.to_string();
    assert!(shown.len() < 100_000, "{} bytes", shown.len());
    assert!(
        shown.ends_with(&format!("… and {} more", crate::experiment::problems::grouped(said.1)))
    );
    let last = said.0.last().unwrap().to_string();
    assert!(last.contains("run-0000"), "the place is shown: {last}");
}

#[test]
fn many_mistakes_are_counted() {
    let keys: Vec<String> = (0..1234).map(|n| format!("key{n} = 1\n")).collect();
    let keys = keys.concat();
    let said = read(&format!("name = 'x'\n{keys}[task.t]\nrun = 'x'")).unwrap_err();
    assert_eq!((said.0.len(), said.1), (100, 1134));
    assert!(said.to_string().ends_with("\n\n… and 1,134 more"));
}

#[test]
fn a_long_line_is_quoted_in_part() {
    let text =
        format!("name = 'x'\ndescription = '{}' oops\n[task.t]\nrun = 'x'", "é".repeat(500_000));
    let shown = read(&text).unwrap_err().to_string();
    assert!(shown.len() < 2000, "{} bytes", shown.len());
    assert!(shown.contains("oops"), "{shown}");
    let key = format!("name = 'x'\n{} = 1\n[task.t]\nrun = 'x'", "k".repeat(500_000));
    assert!(read(&key).unwrap_err().to_string().len() < 10_000);
}
