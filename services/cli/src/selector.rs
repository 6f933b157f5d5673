//! Label selectors as they are typed: `tier=gold,region in (eu,us),!legacy`.

use airfleet_domain::labels::{Operator, Requirement};

/// What `-l` takes: conditions that must all hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selector(pub Vec<Requirement>);

impl std::str::FromStr for Selector {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        conditions(text).into_iter().map(requirement).collect::<Result<_, _>>().map(Selector)
    }
}

/// Splits at commas outside of parentheses.
fn conditions(text: &str) -> Vec<&str> {
    let (mut parts, mut start, mut depth) = (Vec::new(), 0, 0_u32);
    for (index, byte) in text.bytes().enumerate() {
        match byte {
            b'(' => depth += 1,
            b')' => depth = depth.saturating_sub(1),
            b',' if depth == 0 => {
                parts.push(&text[start..index]);
                start = index + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[start..]);
    parts
}

fn requirement(text: &str) -> Result<Requirement, String> {
    let text = text.trim();
    let make = |key: &str, operator, values: Vec<String>| {
        let key = key.trim();
        if is_key(key) {
            Ok(Requirement { key: key.to_owned(), operator, values })
        } else {
            Err(format!(
                "{text:?} is not a condition; write key=value, key!=value, key in (a,b), key notin \
                 (a,b), key or !key"
            ))
        }
    };
    if let Some((key, operator, list)) = set_condition(text) {
        let list = list.trim().strip_prefix('(').and_then(|list| list.strip_suffix(')'));
        let values: Vec<String> = list
            .ok_or_else(|| format!("{text:?} lacks its parentheses; write key in (a,b)"))?
            .split(',')
            .map(|value| value.trim().to_owned())
            .collect();
        if values.iter().all(String::is_empty) {
            return Err(format!("{text:?} names no value"));
        }
        return make(key, operator, values);
    }
    if let Some((key, value)) = text.split_once("!=") {
        return make(key, Operator::NotIn, vec![value.trim().to_owned()]);
    }
    if let Some((key, value)) = text.split_once("==").or_else(|| text.split_once('=')) {
        return make(key, Operator::In, vec![value.trim().to_owned()]);
    }
    match text.strip_prefix('!') {
        Some(key) => make(key, Operator::DoesNotExist, Vec::new()),
        None => make(text, Operator::Exists, Vec::new()),
    }
}

/// `key in (…)` and `key notin (…)` taken apart.
fn set_condition(text: &str) -> Option<(&str, Operator, &str)> {
    let (key, rest) = text.split_once(char::is_whitespace)?;
    let rest = rest.trim_start();
    let after = |word: &str| {
        rest.strip_prefix(word)
            .filter(|rest| rest.starts_with(|c: char| c == '(' || c.is_whitespace()))
    };
    if let Some(list) = after("in") {
        return Some((key, Operator::In, list));
    }
    after("notin").map(|list| (key, Operator::NotIn, list))
}

fn is_key(key: &str) -> bool {
    !key.is_empty()
        && key.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'/' | b'-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> Vec<String> {
        let Selector(requirements) = text.parse().unwrap();
        requirements.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn every_form_is_read() {
        assert_eq!(shown("tier=gold"), ["tier in (gold)"]);
        assert_eq!(shown("tier == gold"), ["tier in (gold)"]);
        assert_eq!(shown("tier!=gold"), ["tier not in (gold)"]);
        assert_eq!(
            shown("region in (eu, us),!legacy , team"),
            ["region in (eu, us)", "!legacy", "team"]
        );
        assert_eq!(shown("a/b.c notin (x)"), ["a/b.c not in (x)"]);
        assert_eq!(shown("a in(x,y)"), ["a in (x, y)"]);
        assert_eq!(shown("index=1"), ["index in (1)"]);
    }

    #[test]
    fn what_is_not_one_is_refused_with_the_forms() {
        for bad in ["", "a,,b", "=x", "a b", "a in x", "a in ()", "a b=c", "!"] {
            let error = bad.parse::<Selector>().expect_err(bad);
            assert!(error.contains(bad.split(',').next().unwrap_or_default()), "{error}");
        }
        assert!("a b".parse::<Selector>().unwrap_err().contains("key notin (a,b)"));
    }
}
