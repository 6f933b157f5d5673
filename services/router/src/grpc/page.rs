//! Page sizes and tokens.

use airfleet_runtime::status::FieldViolation;
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use xxhash_rust::xxh3::xxh3_64;

/// Entries of a page unless told.
const SIZE_DEFAULT: usize = 100;
/// Entries of a page at most.
const SIZE_MAX: usize = 1000;

/// Bytes of the checksum that ties a token to what was asked.
const CHECK_BYTES: usize = 8;

/// The number of entries to answer with.
pub(super) fn size(asked: i32, violations: &mut Vec<FieldViolation>) -> usize {
    match usize::try_from(asked) {
        Ok(0) => SIZE_DEFAULT,
        Ok(size) => size.min(SIZE_MAX),
        Err(_) => {
            let message = "must not be negative; 0 means 100, at most 1000";
            violations.push(FieldViolation::new("page_size", "OUT_OF_RANGE", message));
            SIZE_DEFAULT
        }
    }
}

/// A token for the page after the entry `last`, of a listing that asked for `question`.
pub(super) fn token(question: &str, last: &str) -> String {
    let mut bytes = check(question, last).to_vec();
    bytes.extend_from_slice(last.as_bytes());
    URL_SAFE_NO_PAD.encode(bytes)
}

/// The entry that a token's page begins after; empty for the first page.
pub(super) fn after(question: &str, token: &str, violations: &mut Vec<FieldViolation>) -> String {
    if token.is_empty() {
        return String::new();
    }
    let last = URL_SAFE_NO_PAD.decode(token).ok().and_then(|bytes| {
        let (sum, last) = bytes.split_first_chunk::<CHECK_BYTES>()?;
        let last = str::from_utf8(last).ok()?;
        (check(question, last) == *sum).then(|| last.to_owned())
    });
    last.unwrap_or_else(|| {
        let message = "must be the token of the previous page, with the same filters";
        violations.push(FieldViolation::new("page_token", "MALFORMED", message));
        String::new()
    })
}

fn check(question: &str, last: &str) -> [u8; CHECK_BYTES] {
    xxh3_64(format!("{question}\0{last}").as_bytes()).to_le_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_leads_to_the_next_page_of_the_same_question_only() {
        let token = token("a/ASSIGNED", "payments");
        let mut violations = Vec::new();
        assert_eq!(after("a/ASSIGNED", &token, &mut violations), "payments");
        assert_eq!(after("", "", &mut violations), "");
        assert!(violations.is_empty());
        for (question, token) in [("b/ASSIGNED", token.as_str()), ("a/ASSIGNED", "AAAA"), ("", "ü")]
        {
            after(question, token, &mut violations);
        }
        assert_eq!(violations.len(), 3);
    }

    #[test]
    fn sizes_are_bounded() {
        let mut violations = Vec::new();
        assert_eq!(size(0, &mut violations), 100);
        assert_eq!(size(7, &mut violations), 7);
        assert_eq!(size(i32::MAX, &mut violations), 1000);
        assert!(violations.is_empty());
        size(-1, &mut violations);
        assert_eq!(violations[0].field, "page_size");
    }
}
