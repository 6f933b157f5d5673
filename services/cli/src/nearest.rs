//! The name that was probably meant.

/// The candidate that differs least from `name`, if it is close enough to be meant.
pub fn nearest<'a>(name: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let most = (name.chars().count() / 3).max(1);
    candidates
        .map(|candidate| {
            // A part of a name is meant as often as a mistyped one.
            let distance = if candidate.starts_with(name) {
                0
            } else {
                strsim::damerau_levenshtein(name, candidate)
            };
            (distance, candidate)
        })
        .filter(|(distance, _)| *distance <= most)
        .min()
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_names_are_found_and_far_ones_are_not() {
        let names = ["payments", "search", "analytics"];
        let found = |name: &str| nearest(name, names.into_iter());
        assert_eq!(found("paymnets"), Some("payments"));
        assert_eq!(found("pay"), Some("payments"));
        assert_eq!(found("serach"), Some("search"));
        assert_eq!(found("billing"), None);
    }
}
