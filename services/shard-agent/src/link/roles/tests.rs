use std::time::Instant;

use super::*;

fn role(namespace: &str, prefix: &str) -> wire::DesiredRole {
    wire::DesiredRole {
        namespace: namespace.to_owned(),
        prefixes: vec![prefix.to_owned()],
        role: 3,
        generation: 1,
        ..wire::DesiredRole::default()
    }
}

fn told(term: i64, sequence: i64, full: bool, roles: Vec<wire::DesiredRole>) -> wire::DesiredRoles {
    wire::DesiredRoles { term, sequence, full, roles, ..Default::default() }
}

fn names(roles: &Roles) -> Vec<String> {
    roles.owners().borrow().names().iter().map(ToString::to_string).collect()
}

fn quarantined(roles: &Roles) -> Vec<String> {
    let inner = roles.lock();
    let quarantined = inner.book.namespaces.iter().filter(|(_, order)| order.quarantined);
    quarantined.map(|(name, _)| name.to_string()).collect()
}

#[test]
fn messages_add_up() {
    let roles = Roles::forgetful();
    roles.begin(1).unwrap();
    roles.take(told(1, 1, true, vec![role("pay", "pay__"), role("ads", "ads__")])).unwrap();
    let removal = wire::DesiredRoles {
        removed: vec!["ads".to_owned(), "unknown".to_owned(), "not a name".to_owned()],
        ..told(1, 2, false, vec![role("tax", "tax__"), role("pay", "pay.")])
    };
    roles.take(removal).unwrap();
    // What the router has no word for stays, in quarantine.
    assert_eq!(names(&roles), ["ads", "pay", "tax"]);
    assert_eq!(quarantined(&roles), ["ads"]);
    let owners = roles.owners().borrow().clone();
    assert_eq!(owners.owner_of("pay.x").map(|index| owners.names()[index].as_str()), Some("pay"));
    assert_eq!(owners.owner_of("pay__x"), None);
    roles.take(told(1, 3, true, vec![])).unwrap();
    assert_eq!(quarantined(&roles), ["ads", "pay", "tax"]);
    roles.take(told(1, 4, false, vec![role("pay", "pay.")])).unwrap();
    assert_eq!(quarantined(&roles), ["ads", "tax"]);
}

#[test]
fn a_router_that_was_replaced_is_not_obeyed() {
    let roles = Roles::forgetful();
    roles.begin(5).unwrap();
    roles.take(told(5, 1, true, vec![role("pay", "pay__")])).unwrap();
    assert_eq!(roles.begin(4), Err(Refused::StaleTerm { told: 4, seen: 5 }));
    let stale = roles.take(told(4, 9, true, vec![]));
    assert_eq!(stale, Err(Refused::StaleTerm { told: 4, seen: 5 }));
    let again = roles.take(told(5, 1, true, vec![]));
    assert_eq!(again, Err(Refused::OutOfOrder { told: 1, seen: 1 }));
    assert_eq!(names(&roles), ["pay"]);
    // A new stream counts from the beginning.
    roles.begin(6).unwrap();
    assert_eq!(names(&roles), ["pay"]);
    roles.take(told(6, 1, false, vec![role("tax", "tax__")])).unwrap();
    assert_eq!(names(&roles), ["pay", "tax"]);
    assert!(quarantined(&roles).is_empty());
    // So does a new term on the same stream, where a replica leads again.
    roles.take(told(7, 1, true, vec![role("ads", "ads__")])).unwrap();
    assert_eq!(quarantined(&roles), ["pay", "tax"]);
}

#[test]
fn malformed_names_and_prefixes_are_passed_over() {
    let roles = Roles::forgetful();
    let bad = vec![role("NOT A NAME", "x__"), role("pay", "%"), role("tax", "tax__")];
    roles.take(told(1, 1, true, bad)).unwrap();
    assert_eq!(names(&roles), ["pay", "tax"]);
    assert_eq!(roles.owners().borrow().owner_of("%"), None);
}

#[tokio::test]
async fn a_restart_remembers() {
    let folder = tempfile::tempdir().unwrap();
    let roles = Roles::load(folder.path(), "shard-a").unwrap();
    let saving = tokio::spawn(roles.clone().keep_saving(Shutdown::new()));
    roles.begin(7).unwrap();
    roles.take(told(7, 1, true, vec![role("pay", "pay__")])).unwrap();

    let deadline = Instant::now() + Duration::from_secs(10);
    let again = loop {
        let again = Roles::load(folder.path(), "shard-a").unwrap();
        if names(&again) == ["pay"] {
            break again;
        }
        assert!(Instant::now() < deadline, "nothing was saved");
        tokio::time::sleep(Duration::from_millis(10)).await;
    };
    saving.abort();
    assert_eq!(again.begin(6), Err(Refused::StaleTerm { told: 6, seen: 7 }));
    assert!(names(&Roles::load(folder.path(), "shard-b").unwrap()).is_empty());

    std::fs::write(folder.path().join("roles-shard-a.json"), "{").unwrap();
    let damaged = Roles::load(folder.path(), "shard-a").unwrap_err();
    assert!(matches!(damaged, LoadError::Damaged { .. }), "{damaged}");
}
