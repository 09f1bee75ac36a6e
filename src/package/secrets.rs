//! What must not be shipped by mistake: files that hold passwords and keys, by their names and by what they contain.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use regex::bytes::Regex;

use super::choose::IGNORE_FILE;
use crate::error::{CommandError, ExitCode};
use crate::humanize::count;

/// A file that must not be shipped.
#[derive(Debug)]
pub(super) struct Secret {
    pub(super) path: PathBuf,
    pub(super) why: String,
}

/// Names all of them at once: who corrects one does not meet the next.
pub(super) fn refused(secrets: &[Secret]) -> CommandError {
    let (text, it) = match secrets {
        [Secret { path, why }] => (format!("`{}` is not shipped: {why}", path.display()), "it"),
        all => {
            let each = all.iter().map(|it| format!("`{}`: {}", it.path.display(), it.why));
            let each: Vec<String> = each.collect();
            (format!("{} are not shipped: {}", count(all.len(), "file"), each.join("; ")), "each")
        }
    };
    let include = secrets.iter().map(|it| format!("\"{}\"", it.path.display()));
    let include = include.collect::<Vec<_>>().join(", ");
    CommandError::new(ExitCode::Usage, text)
        .hinted(format!("name {it} in `{IGNORE_FILE}`: {it} is then linked"))
        .hinted(format!("if {it} is none: `include = [{include}]` in `[package]`"))
}

/// Why a file must not be shipped, by its name.
pub(super) fn by_name(path: &Path) -> Option<&'static str> {
    let plain = |name: &OsStr| name.to_string_lossy().to_ascii_lowercase();
    let name = path.file_name()?.to_string_lossy();
    let is_in_aws = path.components().any(|part| plain(part.as_os_str()) == ".aws");
    let is_pem = path.extension().is_some_and(|extension| plain(extension) == "pem");
    match &*name {
        _ if is_in_aws => Some("files in `.aws` hold keys"),
        _ if is_pem => Some("`*.pem` are keys"),
        ".netrc" | "_netrc" | ".pypirc" | ".pgpass" | ".git-credentials" => {
            Some("it holds passwords")
        }
        _ if plain(path.file_name()?).starts_with(".env") => Some("`.env*` hold passwords"),
        name if name.starts_with("id_") => Some("`id_*` are keys"),
        name if name.starts_with("credentials") => Some("`credentials*` hold passwords"),
        _ => None,
    }
}

/// What a secret looks like, and its name. What stands between a name and its value is the language's: `=`, `: "`, `"] = "`,
/// `: str = "`.
const SHAPES: [(&str, &str); 12] = [
    (
        "private key",
        r"-----BEGIN (?:[A-Z]+ )*PRIVATE KEY(?: BLOCK)?-----|---- BEGIN SSH2 (?:ENCRYPTED )?PRIVATE KEY",
    ),
    ("private key", r"PuTTY-User-Key-File-\d|AGE-SECRET-KEY-1[0-9A-Z]{50}"),
    ("key of AWS", r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b"),
    (
        "key of AWS",
        r#"(?i)(?:secret[_-]?access|aws[_-]?secret)[_-]?key(?:: ?[\w\[\]]+)?[ \t"'\])(,:=]{1,12}[A-Za-z0-9/+]{40}(?:[^A-Za-z0-9/+=]|$)"#,
    ),
    ("token of GitHub", r"gh[pousr]_[A-Za-z0-9_]{36,}|github_pat_[A-Za-z0-9_]{40,}"),
    ("token of Hugging Face", r"(?:\b|_)(?:hf|api_org)_[A-Za-z0-9]{30,}"),
    // Names with hyphens, such as `sk-` and a UUID, have no capitals.
    (
        "key of OpenAI",
        r"\bsk-(?:[A-Za-z0-9]{32,}|(?:proj|svcacct|admin|ant)-[A-Za-z0-9_-]{32,}|[a-z0-9_-]{0,12}[A-Z][A-Za-z0-9_-]{31,})",
    ),
    (
        "key of W&B",
        r#"(?i)wandb[_.-]?(?:api[_-]?)?(?:key|token)(?:: ?[\w\[\]]+)?[ \t"'\])(,:=-]{1,12}(?:local-)?[0-9a-f]{40}\b"#,
    ),
    // Its name may stand elsewhere: `wandb:` with `api_key:` below it, `wandb.Api(api_key="…")`.
    ("key of W&B", r#"(?i)\bapi[_-]?key[ \t"'\])(,:=]{1,12}(?:local-)?[0-9a-f]{40}\b"#),
    ("key of W&B", r"\bwandb_v1_[A-Za-z0-9_-]{40,}"),
    // What `wandb login` writes into `~/.netrc`, wherever it was copied to.
    ("key of W&B", r"(?i)\bwandb\b[^\n]{0,20}\s[\s\w]{0,40}\bpassword\s+(?:local-)?[0-9a-f]{40}\b"),
    ("key of W&B", r#"(?i)wandb["', \t.]{1,4}login\b(?:\(\s*)?[^\n#;&|]{1,60}?\b[0-9a-f]{40}\b"#),
];

static ANY: LazyLock<Option<Regex>> = LazyLock::new(|| {
    let all: Vec<String> = SHAPES.iter().map(|(_, shape)| format!("(?:{shape})")).collect();
    Regex::new(&all.join("|")).ok()
});

/// The first secret in a text: its name, and the line that it is in, from 1.
pub(super) fn in_text(text: &[u8]) -> Option<(&'static str, usize)> {
    let found = ANY.as_ref()?.find(text)?;
    let of_kind =
        |shape: &str| Regex::new(shape).is_ok_and(|shape| shape.is_match(found.as_bytes()));
    let (name, _) = SHAPES.iter().find(|(_, shape)| of_kind(shape))?;
    let before = text.get(..found.start())?;
    Some((name, 1 + memchr::memchr_iter(b'\n', before).count()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::ffi::OsStrExt;

    #[test]
    fn names_of_secrets_are_known() {
        for name in [".env", ".env.local", "a/key.pem", "id_ed25519", ".netrc", "x/.aws/config"] {
            assert!(by_name(Path::new(name)).is_some(), "{name}");
        }
        for name in
            [&b".env.\xff"[..], b"Server.PEM", b".git-credentials", b"a/.AWS/config", b".ENV"]
        {
            assert!(by_name(Path::new(OsStr::from_bytes(name))).is_some(), "{name:?}");
        }
        for name in ["environment.yml", "pem.py", "hidden_size.py", "train.py", "a/netrc"] {
            assert_eq!(by_name(Path::new(name)), None, "{name}");
        }
        for name in ["ID_to_label.json", "ID_map.py", "Credentials.md"] {
            assert_eq!(by_name(Path::new(name)), None, "{name}");
        }
    }

    #[test]
    fn secrets_are_seen_in_texts() {
        let long = "a1B2".repeat(12);
        let key = "0123456789abcdef0123456789abcdef01234567";
        let pem = ["-----BEGIN RSA PRIVATE", " KEY-----"].concat();
        let check = |text: String, expected: Option<(&'static str, usize)>| {
            assert_eq!(in_text(text.as_bytes()), expected, "{text}");
        };
        check(format!("a\n{pem}\n"), Some(("private key", 2)));
        check(format!("k = 'AKIA{}'", "ABCDEFGH12345678"), Some(("key of AWS", 1)));
        check(format!("x\ny\nghp_{long}"), Some(("token of GitHub", 3)));
        check(format!("hf_{long}"), Some(("token of Hugging Face", 1)));
        check(format!("sk-{long}"), Some(("key of OpenAI", 1)));
        check(format!("export WANDB_API_KEY={key}"), Some(("key of W&B", 1)));
        for text in [
            "os.environ[\"WANDB_API_KEY\"] = \"<>\"",
            "os.environ.setdefault('WANDB_API_KEY', '<>')",
            "ENV WANDB_API_KEY <>",
            "wandb_key: <>",
            "wandb.login(key=\"<>\")",
            "!wandb login --relogin <>",
            "[\"wandb\", \"login\", \"<>\"]",
        ] {
            check(text.replace("<>", key), Some(("key of W&B", 1)));
        }
        check(
            format!("machine api.wandb.ai\n  login user\n  password {key}\n"),
            Some(("key of W&B", 1)),
        );
        check(format!("machine api.wandb.ai login user password {key}"), Some(("key of W&B", 1)));
        check(format!("k = 'wandb_v1_{long}'"), Some(("key of W&B", 1)));
        let secret = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYzzzzzzzKEY";
        for text in [
            "AWS_SECRET_ACCESS_KEY=<>",
            "Session(aws_secret_access_key='<>')",
            "\"SecretAccessKey\": \"<>\",",
            "secret-access-key: <>",
            "AWS_SECRET_KEY: str = '<>'",
        ] {
            check(text.replace("<>", secret), Some(("key of AWS", 1)));
        }
        for text in [
            "wandb==0.17  # <>",
            "wandb.login()\ngit checkout <>",
            "wandb login # since <>",
            "commit <>",
        ] {
            check(text.replace("<>", key), None);
        }
        check(format!("sha = \"{key}\"\ntask-{long}\nhf_model = 'x'"), None);
        check("<div id=\"sk-3f2504e0-4f89-11d3-9a0c-0305e82c3301\">".to_owned(), None);
        check("a.sk-toggleable__label-arrow-of-the-estimators-diagram".to_owned(), None);
        check(format!("sk-proj-{}", "a-_B".repeat(10)), Some(("key of OpenAI", 1)));
        check(format!("TOKEN_ghs_12_{long}"), Some(("token of GitHub", 1)));
        check(format!("wandb:\n  api_key: {key}"), Some(("key of W&B", 2)));
        check(format!("wandb.login(\n    key=\"{key}\",\n)"), Some(("key of W&B", 1)));
        check(format!("KEY_OF_WANDB = 1\nWANDB_API_KEY: str = '{key}'"), Some(("key of W&B", 2)));
        check("PuTTY-User-Key-File-3: ssh-ed25519".to_owned(), Some(("private key", 1)));
        let far = [vec![b'\n'; 9 << 20], format!("hf_{long}").into_bytes()].concat();
        assert_eq!(in_text(&far), Some(("token of Hugging Face", 1 + (9 << 20))));
    }
}
