use proptest::prelude::*;

use super::*;

fn name(text: &str) -> NamespaceName {
    text.parse().unwrap()
}

fn owners(table: &[(&str, &[&str])]) -> Owners {
    let owned: Vec<(NamespaceName, Vec<String>)> = table
        .iter()
        .map(|(n, prefixes)| (name(n), prefixes.iter().map(|p| (*p).to_owned()).collect()))
        .collect();
    Owners::new(owned.iter().map(|(n, p)| (n, p.as_slice())))
}

fn owner<'a>(owners: &'a Owners, dag_id: &str) -> Option<&'a str> {
    owners.owner_of(dag_id).map(|index| owners.names()[index].as_str())
}

#[test]
fn the_longest_prefix_owns() {
    let table = owners(&[
        ("payments", &["payments__", "pay."][..]),
        ("refunds", &["payments__refunds__"]),
        ("empty", &[]),
        ("umlaut", &["züri"]),
    ]);
    assert_eq!(owner(&table, "payments__daily"), Some("payments"));
    assert_eq!(owner(&table, "payments__refunds__x"), Some("refunds"));
    // After the longer prefix in order, and still the shorter one's.
    assert_eq!(owner(&table, "payments__zzz"), Some("payments"));
    assert_eq!(owner(&table, "pay.x"), Some("payments"));
    assert_eq!(owner(&table, "payments"), None);
    assert_eq!(owner(&table, "payments_"), None);
    assert_eq!(owner(&table, "zürich_daily"), Some("umlaut"));
    assert_eq!(owner(&table, "zurich_daily"), None);
    assert_eq!(owner(&Owners::default(), "x"), None);
}

#[test]
fn case_and_underscores_are_no_wildcards() {
    let table = owners(&[("team-a", &["team_"])]);
    assert_eq!(owner(&table, "teamX1"), None);
    assert_eq!(owner(&table, "Team_1"), None);
    assert_eq!(owner(&table, "team_1"), Some("team-a"));
}

proptest! {
    #[test]
    fn it_answers_as_a_search_through_all_prefixes(
        table in prop::collection::btree_map("[a-c]{3}", prop::collection::vec("[abé_.]{1,5}", 0..6), 0..8),
        dag_ids in prop::collection::vec("[abé_.]{0,8}", 1..40),
    ) {
        let owned: Vec<(NamespaceName, Vec<String>)> =
            table.into_iter().map(|(n, p)| (name(&n), p)).collect();
        let built = Owners::new(owned.iter().map(|(n, p)| (n, p.as_slice())));
        for dag_id in &dag_ids {
            let mut best: Option<(usize, &str)> = None;
            for (n, prefixes) in &owned {
                for prefix in prefixes.iter().filter(|p| dag_id.starts_with(p.as_str())) {
                    if best.is_none_or(|(length, _)| prefix.len() > length) {
                        best = Some((prefix.len(), n.as_str()));
                    }
                }
            }
            prop_assert_eq!(owner(&built, dag_id), best.map(|(_, n)| n), "{}", dag_id);
        }
    }
}
