//! Page tokens: where the next page starts, bound to the filter that the first one had.

use airfleet_runtime::status::FieldViolation;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Serialize;
use xxhash_rust::xxh3::xxh3_64;

/// Longest token that is looked at.
const TOKEN_MAX_BYTES: usize = 512;

/// Makes and reads the tokens of one filter.
pub(super) struct PageToken([u8; 8]);

impl PageToken {
    /// Tokens that are of use with `filter` only.
    pub(super) fn bound_to(filter: &impl Serialize) -> Self {
        let filter = serde_json::to_vec(filter).expect("a filter has text keys only");
        Self(xxh3_64(&filter).to_be_bytes())
    }

    pub(super) fn at_name(&self, name: &str) -> String {
        self.write(name.as_bytes())
    }

    pub(super) fn at_number(&self, number: i64) -> String {
        self.write(&number.to_be_bytes())
    }

    /// The name; empty for an empty token.
    pub(super) fn read_name(&self, token: &str, violations: &mut Vec<FieldViolation>) -> String {
        self.read(token, violations, |place| {
            let name = String::from_utf8(place).ok()?;
            super::is_plain(&name, 250).then_some(name)
        })
        .unwrap_or_default()
    }

    /// The number; `None` for an empty token.
    pub(super) fn read_number(
        &self,
        token: &str,
        violations: &mut Vec<FieldViolation>,
    ) -> Option<i64> {
        self.read(token, violations, |place| Some(i64::from_be_bytes(place.try_into().ok()?)))
    }

    fn write(&self, place: &[u8]) -> String {
        URL_SAFE_NO_PAD.encode([&self.0, place].concat())
    }

    fn read<T>(
        &self,
        token: &str,
        violations: &mut Vec<FieldViolation>,
        place: impl FnOnce(Vec<u8>) -> Option<T>,
    ) -> Option<T> {
        if token.is_empty() {
            return None;
        }
        let read = || {
            let short = Some(token).filter(|token| token.len() <= TOKEN_MAX_BYTES)?;
            let bytes = URL_SAFE_NO_PAD.decode(short).ok()?;
            let (filter, rest) = bytes.split_at_checked(self.0.len())?;
            if filter == self.0 { place(rest.to_vec()) } else { None }
        };
        let found = read();
        if found.is_none() {
            let rule = "is not from a page of the same list; pass it back unchanged, with the \
                        same filter, or leave it out to start over";
            violations.push(FieldViolation::new("page_token", "INVALID_PAGE_TOKEN", rule));
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_comes_back_only_with_its_filter() {
        let (one, two) = (PageToken::bound_to(&"one"), PageToken::bound_to(&"two"));
        let mut violations = Vec::new();
        assert_eq!(one.read_name(&one.at_name("payments"), &mut violations), "payments");
        assert_eq!(one.read_number(&one.at_number(-7), &mut violations), Some(-7));
        assert_eq!(one.read_name("", &mut violations), "");
        assert!(violations.is_empty());
        assert_eq!(two.read_name(&one.at_name("payments"), &mut violations), "");
        assert_eq!(two.read_number(&two.at_name("pay"), &mut violations), None);
        for hostile in ["x", "????", "AAAAAAAAAAA", &"A".repeat(100_000), "é"] {
            two.read_name(hostile, &mut violations);
        }
        assert_eq!(violations.len(), 7, "{violations:?}");
    }
}
