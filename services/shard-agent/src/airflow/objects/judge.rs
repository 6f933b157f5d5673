//! What is to be changed, and what is to be told.

use std::collections::BTreeSet;

use airfleet_domain::manifest::Enforcement;

use super::{Declarations, Declared, Found, Key, Kind, Value};

/// One change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Change {
    /// Make it, for it is not there.
    Create(Key, Declared),
    /// Make it as declared.
    Update(Key, Declared),
    /// It is as declared; note so.
    Note(Key, Declared),
    /// Take it away.
    Remove(Key),
}

impl Change {
    /// For people: what is done to what.
    pub(crate) fn words(&self) -> Option<String> {
        let (did, (kind, name)) = match self {
            Change::Create(key, _) => ("made", key),
            Change::Update(key, _) => ("changed", key),
            Change::Remove(key) => ("removed", key),
            Change::Note(..) => return None,
        };
        Some(format!("{did} {} {name}", kind.name()))
    }
}

/// Something that is not as declared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Difference {
    /// What.
    pub(crate) key: Key,
    /// Stable code.
    pub(crate) code: String,
    /// One line for people. Never a value that may be secret.
    pub(crate) message: String,
    /// Whether it is left as it is.
    pub(crate) tolerated: bool,
}

/// Compares what is declared for `namespace` with what was found. `drift` says what is done about
/// what somebody else changed; what the manifest changed is always brought about.
pub(crate) fn judge(
    namespace: &str,
    declared: &Declarations,
    found: &Found,
    drift: Enforcement,
) -> (Vec<Change>, Vec<Difference>) {
    let (mut changes, mut differences) = (Vec::new(), Vec::new());
    let ours = found.owned.iter().filter(|(_, owned)| owned.namespace == namespace);
    let keys: BTreeSet<&Key> = declared.keys().chain(ours.map(|(key, _)| key)).collect();
    for key in keys {
        let mut tell = |what: &str, message: String, tolerated: bool| {
            let code = format!("{}_{what}", key.0.name().to_uppercase());
            differences.push(Difference { key: key.clone(), code, message, tolerated });
        };
        let (kind, name) = (key.0.name(), &key.1);
        let present = found.present.get(key);
        let Some(wanted) = declared.get(key) else {
            if key.0 == Kind::Pool && found.busy_pools.contains(name) {
                let message = format!(
                    "pool {name} is no longer declared; it goes once no task waits for it or runs in it"
                );
                tell("IN_USE", message, true);
            } else {
                changes.push(Change::Remove(key.clone()));
            }
            continue;
        };
        let Some(wanted) = wanted else { continue };
        let owned = match (found.owned.get(key), present) {
            (Some(owned), _) if owned.namespace == namespace => owned,
            (Some(owned), _) => {
                let message = format!(
                    "{kind} {name} belongs to namespace {}; declare another name",
                    owned.namespace
                );
                tell("TAKEN", message, true);
                continue;
            }
            (None, Some(_)) => {
                let message = format!(
                    "{kind} {name} was made by somebody else and is left as it is; remove it on the \
                     shard, or declare another name"
                );
                tell("FOREIGN", message, true);
                continue;
            }
            (None, None) => {
                changes.push(Change::Create(key.clone(), wanted.clone()));
                continue;
            }
        };
        let is_drift = owned.digest == wanted.digest;
        let tolerated = is_drift && drift == Enforcement::Warn;
        match present {
            None => {
                if is_drift {
                    tell(
                        "MISSING",
                        format!("{kind} {name} is declared and was removed"),
                        tolerated,
                    );
                }
                if !tolerated {
                    changes.push(Change::Create(key.clone(), wanted.clone()));
                }
            }
            Some(present) if *present == wanted.value => {
                if !is_drift {
                    changes.push(Change::Note(key.clone(), wanted.clone()));
                }
            }
            Some(present) => {
                if is_drift {
                    tell(changed(present), describe(kind, name, &wanted.value, present), tolerated);
                }
                if !tolerated {
                    changes.push(Change::Update(key.clone(), wanted.clone()));
                }
            }
        }
    }
    (changes, differences)
}

fn changed(present: &Value) -> &'static str {
    if matches!(present, Value::Pool { .. }) { "RESIZED" } else { "CHANGED" }
}

fn describe(kind: &str, name: &str, wanted: &Value, present: &Value) -> String {
    match (wanted, present) {
        (Value::Pool { slots, .. }, Value::Pool { slots: found, .. }) if slots != found => {
            format!("pool {name} is declared with {slots} slots and has {found}")
        }
        _ => format!("{kind} {name} is not as declared; somebody changed it on the shard"),
    }
}

#[cfg(test)]
mod tests {
    use super::{super::Owned, *};

    fn key(name: &str) -> Key {
        (Kind::Pool, name.to_owned())
    }

    fn pool(slots: i64) -> Value {
        Value::Pool { slots, description: String::new(), include_deferred: false }
    }

    fn declared(slots: i64) -> Declared {
        Declared { value: pool(slots), digest: slots.to_string() }
    }

    fn owned(namespace: &str, digest: i64) -> Owned {
        Owned { namespace: namespace.to_owned(), digest: digest.to_string() }
    }

    /// Declared slots; whose it is and the slots that were declared before; slots that are there.
    fn one(
        wanted: Option<i64>,
        mine: Option<(&str, i64)>,
        present: Option<i64>,
        drift: Enforcement,
    ) -> (Vec<Change>, Vec<(String, bool)>) {
        let wanted = wanted.map(|slots| (key("p"), Some(declared(slots)))).into_iter().collect();
        let found = Found {
            owned: mine.map(|(who, slots)| (key("p"), owned(who, slots))).into_iter().collect(),
            present: present.map(|slots| (key("p"), pool(slots))).into_iter().collect(),
            busy_pools: Vec::new(),
        };
        let (changes, differences) = judge("pay", &wanted, &found, drift);
        (changes, differences.into_iter().map(|one| (one.code, one.tolerated)).collect())
    }

    #[test]
    fn what_the_manifest_says_is_made() {
        use Enforcement::{Enforce, Warn};
        for drift in [Enforce, Warn] {
            let made = vec![Change::Create(key("p"), declared(4))];
            assert_eq!(one(Some(4), None, None, drift), (made, vec![]));
            let changed = vec![Change::Update(key("p"), declared(4))];
            assert_eq!(one(Some(4), Some(("pay", 3)), Some(3), drift), (changed, vec![]));
            let removed = vec![Change::Remove(key("p"))];
            assert_eq!(one(None, Some(("pay", 3)), Some(3), drift), (removed, vec![]));
            assert_eq!(one(Some(4), Some(("pay", 4)), Some(4), drift), (vec![], vec![]));
            // Killed after another agent made it so: only the note is missing.
            let noted = vec![Change::Note(key("p"), declared(4))];
            assert_eq!(one(Some(4), Some(("pay", 3)), Some(4), drift), (noted, vec![]));
        }
    }

    #[test]
    fn what_others_made_is_left_alone() {
        let told = |code: &str| (vec![], vec![(code.to_owned(), true)]);
        let drift = Enforcement::Enforce;
        assert_eq!(one(Some(4), None, Some(9), drift), told("POOL_FOREIGN"));
        assert_eq!(one(Some(4), Some(("ads", 4)), Some(4), drift), told("POOL_TAKEN"));
        assert_eq!(one(None, None, Some(9), drift), (vec![], vec![]));
        assert_eq!(one(None, Some(("ads", 9)), Some(9), drift), (vec![], vec![]));
    }

    #[test]
    fn what_somebody_changed_is_put_right_or_told() {
        use Enforcement::{Enforce, Warn};
        let put_right = vec![Change::Update(key("p"), declared(4))];
        let told = |code: &str, tolerated| vec![(code.to_owned(), tolerated)];
        let changed = one(Some(4), Some(("pay", 4)), Some(9), Enforce);
        assert_eq!(changed, (put_right, told("POOL_RESIZED", false)));
        let changed = one(Some(4), Some(("pay", 4)), Some(9), Warn);
        assert_eq!(changed, (vec![], told("POOL_RESIZED", true)));
        let made = vec![Change::Create(key("p"), declared(4))];
        assert_eq!(
            one(Some(4), Some(("pay", 4)), None, Enforce),
            (made, told("POOL_MISSING", false))
        );
        assert_eq!(
            one(Some(4), Some(("pay", 4)), None, Warn),
            (vec![], told("POOL_MISSING", true))
        );
    }

    #[test]
    fn what_cannot_be_known_at_present_is_left_as_it_is() {
        let found = Found {
            owned: [(key("p"), owned("pay", 4))].into(),
            present: [(key("p"), pool(4))].into(),
            busy_pools: Vec::new(),
        };
        let unknown = [(key("p"), None)].into();
        let judged = judge("pay", &unknown, &found, Enforcement::Enforce);
        assert_eq!(judged, (vec![], vec![]));
    }

    #[test]
    fn a_pool_in_use_stays() {
        let found = Found {
            owned: [(key("p"), owned("pay", 4))].into(),
            present: [(key("p"), pool(4))].into(),
            busy_pools: vec!["p".to_owned()],
        };
        let (changes, differences) =
            judge("pay", &Declarations::new(), &found, Enforcement::Enforce);
        assert_eq!((changes.len(), &*differences[0].code), (0, "POOL_IN_USE"));
    }

    #[test]
    fn values_are_not_told() {
        let secret = Value::Variable("hunter2".to_owned());
        let key = (Kind::Variable, "token".to_owned());
        let wanted = Declared { value: secret.clone(), digest: "1".to_owned() };
        let found = Found {
            owned: [(key.clone(), owned("pay", 1))].into(),
            present: [(key.clone(), Value::Unreadable)].into(),
            busy_pools: Vec::new(),
        };
        let judged = judge("pay", &[(key, Some(wanted))].into(), &found, Enforcement::Enforce);
        assert!(!format!("{judged:?}").contains("hunter2"));
        assert_eq!(judged.1[0].code, "VARIABLE_CHANGED");
    }
}
