//! Errors as one line for people, and counts.
//!
//! Invariant: a line never holds a secret that the agent was given, whatever a library put into
//! its message.

use std::error::Error;

use airfleet_runtime::config::{ConnectionUrl, REDACTED};

/// Longest line that is sent or logged. Bytes.
const LINE_BYTES_MAX: usize = 300;

/// Shortest text that is hidden: hiding shorter ones would make lines unreadable and protects
/// nothing.
const SECRET_BYTES_MIN: usize = 3;

/// An error with its causes, what repeats left out.
pub(crate) fn chain(error: &(dyn Error + 'static)) -> String {
    let mut line = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let text = error.to_string();
        if !line.contains(&text) {
            line.push_str(": ");
            line.push_str(&text);
        }
        cause = error.source();
    }
    line
}

/// "1 file", "2 files".
pub(crate) fn counted(count: i64, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

/// Writes errors without the secrets it knows of.
#[derive(Clone, Default)]
pub(crate) struct Scrubber(Vec<String>);

impl Scrubber {
    /// Hides the passwords of these URLs, as written and decoded.
    pub(crate) fn new<'a>(urls: impl IntoIterator<Item = &'a ConnectionUrl>) -> Self {
        let mut secrets = Vec::new();
        for url in urls {
            let Some((_, rest)) = url.expose().split_once("://") else { continue };
            let Some((login, _)) = rest.rsplit_once('@') else { continue };
            let Some((_, password)) = login.split_once(':') else { continue };
            secrets.push(percent_decode(password));
            secrets.push(password.to_owned());
        }
        secrets.retain(|secret| secret.len() >= SECRET_BYTES_MIN);
        secrets.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
        secrets.dedup();
        Self(secrets)
    }

    /// An error with its causes on one line of bounded length.
    pub(crate) fn line(&self, error: &(dyn Error + 'static)) -> String {
        self.clean(&chain(error))
    }

    /// A text on one line of bounded length.
    pub(crate) fn clean(&self, text: &str) -> String {
        let mut line = text.split_whitespace().collect::<Vec<_>>().join(" ");
        for secret in &self.0 {
            line = line.replace(secret, REDACTED);
        }
        if line.len() > LINE_BYTES_MAX {
            let end = (0..=LINE_BYTES_MAX).rev().find(|end| line.is_char_boundary(*end));
            line.truncate(end.unwrap_or(0));
            line.push('…');
        }
        line
    }
}

fn percent_decode(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let code = after.get(..2).and_then(|code| std::str::from_utf8(code).ok());
        match code.and_then(|code| u8::from_str_radix(code, 16).ok()) {
            Some(byte) if *first == b'%' => {
                bytes.push(byte);
                rest = &after[2..];
            }
            _ => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("cannot connect")]
    struct Outer(#[source] std::io::Error);

    fn outer(text: &str) -> Outer {
        Outer(std::io::Error::other(text.to_owned()))
    }

    #[test]
    fn a_line_has_all_causes_and_no_secret() {
        let url = ConnectionUrl::new("postgres://u:s%2Fecret@db/airflow").unwrap();
        let scrubber = Scrubber::new([&url]);
        let line = scrubber.line(&outer("bad url postgres://u:s%2Fecret@db\n (s/ecret)"));
        assert_eq!(line, "cannot connect: bad url postgres://u:[redacted]@db ([redacted])");
    }

    #[test]
    fn a_line_is_short() {
        let line = Scrubber::default().line(&outer(&"ü".repeat(1000)));
        assert!(line.len() <= LINE_BYTES_MAX + '…'.len_utf8(), "{}", line.len());
    }
}
