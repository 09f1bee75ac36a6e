//! Names with `*` and `?`, as a shell matches them. Pure.

/// Whether a name fits: `*` is any text, `?` one character, `[a-c]` or `[!a-c]` one of these.
#[must_use]
pub(super) fn fits(pattern: &str, name: &str) -> bool {
    let pattern: Vec<char> = pattern.chars().collect();
    let name: Vec<char> = name.chars().collect();
    let (mut at, mut place) = (0, 0);
    // Where the last `*` stands, and how much of the name it takes.
    let mut star: Option<(usize, usize)> = None;
    while place < name.len() {
        if pattern.get(at) == Some(&'*') {
            star = Some((at, place));
            at += 1;
        } else if let Some(length) = fits_one(&pattern[at..], name[place]) {
            at += length;
            place += 1;
        } else if let Some((star_at, taken)) = star {
            (at, place) = (star_at + 1, taken + 1);
            star = Some((star_at, taken + 1));
        } else {
            return false;
        }
    }
    pattern[at..].iter().all(|c| *c == '*')
}

/// Whether a text has a character that stands for others.
#[must_use]
pub fn is_glob(text: &str) -> bool {
    text.contains(['*', '?', '['])
}

/// What is wrong with a pattern.
pub fn check(pattern: &str) -> Result<(), &'static str> {
    let pattern: Vec<char> = pattern.chars().collect();
    let mut at = 0;
    while let Some(c) = pattern.get(at) {
        at += match c {
            '[' => class(&pattern[at..]).ok_or("it has a `[` without a `]`")?.0,
            _ => 1,
        };
    }
    Ok(())
}

/// How much of the pattern stands for this character; nothing if it does not.
fn fits_one(pattern: &[char], c: char) -> Option<usize> {
    match pattern.first()? {
        '?' => Some(1),
        '[' => match class(pattern) {
            Some((length, negated, members)) => (within(members, c) != negated).then_some(length),
            None => (c == '[').then_some(1),
        },
        own => (*own == c).then_some(1),
    }
}

/// The length of a class at the beginning of a pattern, whether it is negated, and what is in it.
fn class(pattern: &[char]) -> Option<(usize, bool, &[char])> {
    let negated = matches!(pattern.get(1), Some('!' | '^'));
    let start = if negated { 2 } else { 1 };
    let end = start + 1 + pattern.get(start + 1..)?.iter().position(|c| *c == ']')?;
    Some((end + 1, negated, &pattern[start..end]))
}

fn within(members: &[char], c: char) -> bool {
    let mut at = 0;
    while let Some(&first) = members.get(at) {
        match members.get(at + 1..) {
            Some(['-', last, ..]) => {
                if (first..=*last).contains(&c) {
                    return true;
                }
                at += 3;
            }
            _ if first == c => return true,
            _ => at += 1,
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::{check, fits};

    #[test]
    fn a_class_must_end() {
        for whole in ["digits", "v[1-3]*", "v[]]", "v[!a]", "]", "[[]"] {
            assert!(check(whole).is_ok(), "{whole}");
        }
        for open in ["[", "v[", "v[]", "v[1-3]x[ab", "[!]"] {
            assert!(check(open).is_err(), "{open}");
        }
    }

    #[test]
    fn patterns_fit_as_in_a_shell() {
        let check =
            |pattern, name, expected| assert_eq!(fits(pattern, name), expected, "{pattern} {name}");
        check("digits", "digits", true);
        check("digits", "digits-big", false);
        check("digit*", "digits-big", true);
        check("*big", "digits-big", true);
        check("*", "", true);
        check("", "", true);
        check("", "a", false);
        check("d*t*g", "digits-big", true);
        check("d*t*x", "digits-big", false);
        check("a?c", "abc", true);
        check("a?c", "ac", false);
        check("v[1-3]*", "v2-x", true);
        check("v[!1-3]", "v2", false);
        check("v[!1-3]", "v4", true);
        check("v[ab", "v[ab", true);
        check("v[]]", "v]", true);
        check("**a**", "bab", true);
        check("größe?", "größen", true);
    }

    #[test]
    fn no_pattern_takes_for_ever() {
        let (pattern, name) = ("*a".repeat(50) + "b", "a".repeat(2000));
        assert!(!fits(&pattern, &name));
    }
}
