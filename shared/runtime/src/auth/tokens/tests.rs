use std::fs;

use super::*;

fn hex(token: &str) -> String {
    Sha256::digest(token).iter().fold(String::new(), |text, byte| format!("{text}{byte:02x}"))
}

fn now() -> Timestamp {
    "2026-06-01T00:00:00Z".parse().unwrap()
}

fn file(dir: &tempfile::TempDir, text: &str) -> PathBuf {
    let path = dir.path().join("tokens.toml");
    fs::write(&path, text).unwrap();
    path
}

#[test]
fn a_token_is_its_principal() {
    let dir = tempfile::tempdir().unwrap();
    let text = format!(
        "[[token]]\nname = \"ci\"\nsha256 = \"{}\"\nrole = \"tenant\"\nnamespaces = [\"ml-*\"]\n\
         [[token]]\nname = \"join\"\nsha256 = \"{}\"\nrole = \"agent\"\nshard = \"eu-1\"\n\
         [[token]]\nname = \"old\"\nsha256 = \"{}\"\nrole = \"admin\"\nexpires = \
         \"2026-05-31T23:59:59Z\"\n",
        hex("alpha"),
        hex("beta"),
        hex("gamma").to_uppercase(),
    );
    let tokens = Tokens::load(file(&dir, &text)).unwrap();

    let tenant = tokens.principal(b"alpha", now()).unwrap();
    assert_eq!((tenant.subject.as_str(), tenant.role), ("token:ci", Role::Tenant));
    assert!(tenant.may_write_namespace("ml-ads"));
    assert!(tokens.principal(b"beta", now()).unwrap().is_agent_for("eu-1"));

    let refused = |token: &[u8]| tokens.principal(token, now()).unwrap_err().reason().to_owned();
    assert_eq!(refused(b"gamma"), reason::TOKEN_EXPIRED);
    assert_eq!(refused(b"alph"), reason::TOKEN_INVALID);
    assert_eq!(refused(b""), reason::TOKEN_INVALID);
    assert_eq!(refused(&[b'x'; 5000]), reason::TOKEN_INVALID);
}

#[test]
fn a_wrong_file_says_what_is_wrong() {
    let entry = |rest: &str| format!("[[token]]\nname = \"a\"\nsha256 = \"{}\"\n{rest}", hex("a"));
    for (text, expected) in [
        (entry("role = \"king\""), "unknown variant `king`"),
        (entry("role = \"viewer\"\nspace = 1"), "unknown field `space`"),
        (entry("role = \"tenant\""), "token \"a\": a tenant has namespaces"),
        (entry("role = \"agent\""), "token \"a\": an agent has a shard"),
        (entry("role = \"agent\"\nshard = \"a*b\""), "invalid name pattern"),
        ("[[token]]\nname = \"a\"\nsha256 = \"12\"\nrole = \"admin\"".into(), "64 hexadecimal"),
        (format!("{0}{0}", entry("role = \"admin\"\n")), "used twice"),
    ] {
        let error = parse(&text).unwrap_err();
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn a_changed_file_counts_and_a_broken_one_does_not() {
    let dir = tempfile::tempdir().unwrap();
    let entry = |name: &str| {
        format!("[[token]]\nname = \"{name}\"\nsha256 = \"{}\"\nrole = \"admin\"\n", hex(name))
    };
    let path = file(&dir, &entry("one"));
    let tokens = Tokens::load(&path).unwrap();
    assert!(!tokens.reload_if_changed().unwrap());

    fs::write(&path, entry("three")).unwrap();
    assert!(tokens.reload_if_changed().unwrap());
    assert!(tokens.principal(b"one", now()).is_err());
    assert!(tokens.principal(b"three", now()).is_ok());

    fs::write(&path, "[[token]]\nname = ").unwrap();
    assert!(matches!(tokens.reload_if_changed(), Err(TokensError::Invalid { .. })));
    assert!(!tokens.reload_if_changed().unwrap(), "reported once");
    assert!(tokens.principal(b"three", now()).is_ok());
}
