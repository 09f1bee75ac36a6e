//! Finds `{name}` in the text of a command.

use super::names::is_identifier;

/// A part of a command's text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    /// Text that stands for itself.
    Text(String),
    /// `{path}`, to be filled in.
    Name {
        /// What stands between the braces.
        path: String,
        /// Where its brace opens, in bytes.
        at: usize,
    },
}

/// Splits a text at its placeholders.
///
/// `{a}` and `{a.b}` are placeholders, `{{a}}` is a literal `{a}`, and any other brace is itself, that of `${HOME}` too.
pub fn scan(text: &str) -> Vec<Piece> {
    let mut pieces = Vec::new();
    let mut literal = String::new();
    let mut at = 0;
    while let Some(found) = text[at..].find('{') {
        let open = at + found;
        literal.push_str(&text[at..open]);
        let rest = &text[open..];
        if let Some(path) = braced(rest, "{{", "}}") {
            literal.push('{');
            literal.push_str(path);
            literal.push('}');
            at = open + path.len() + 4;
        } else if let Some(path) = braced(rest, "{", "}").filter(|_| !text[..open].ends_with('$')) {
            if !literal.is_empty() {
                pieces.push(Piece::Text(std::mem::take(&mut literal)));
            }
            pieces.push(Piece::Name { path: path.to_owned(), at: open });
            at = open + path.len() + 2;
        } else {
            literal.push('{');
            at = open + 1;
        }
    }
    literal.push_str(&text[at..]);
    if !literal.is_empty() {
        pieces.push(Piece::Text(literal));
    }
    pieces
}

/// The path between an opening and its closing, where there is nothing but a path.
fn braced<'a>(text: &'a str, open: &str, close: &str) -> Option<&'a str> {
    let inside = text.strip_prefix(open)?;
    let path = &inside[..inside.find('}')?];
    let whole = inside[path.len()..].starts_with(close) && path.split('.').all(is_identifier);
    whole.then_some(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Literal text as it is, placeholders as `<path@at>`.
    #[track_caller]
    fn check(text: &str, expected: &str) {
        let show = |piece: &Piece| match piece {
            Piece::Text(text) => text.clone(),
            Piece::Name { path, at } => format!("<{path}@{at}>"),
        };
        let found: String = scan(text).iter().map(show).collect();
        assert_eq!(found, expected, "scanning {text:?}");
    }

    #[test]
    fn placeholders_and_other_braces() {
        check("", "");
        check("a", "a");
        check("--lr {lr}", "--lr <lr@5>");
        check("{a}{b}", "<a@0><b@3>");
        check("{prepare.dir}/x", "<prepare.dir@0>/x");
        check("{opt.adam.beta-1}", "<opt.adam.beta-1@0>");
        check("{_x9}", "<_x9@0>");
        check("${HOME} {x}", "${HOME} <x@8>");
        check("$ {x}", "$ <x@2>");
        check("{{x}}", "{x}");
        check("{{x.y}} {z}", "{x.y} <z@8>");
        check("{{{x}}}", "{{x}}");
        check("awk '{print $1}'", "awk '{print $1}'");
        check("{a,b} {} { x } {1} {.a} {a.} {a..b}", "{a,b} {} { x } {1} {.a} {a.} {a..b}");
        check("{a {b}", "{a <b@3>");
        check("{{x}", "{<x@1>");
        check("{x}}", "<x@0>}");
        check("{é} {x}", "{é} <x@5>");
        check("{", "{");
        check("{x", "{x");
    }
}
