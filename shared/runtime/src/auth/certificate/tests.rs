use rcgen::{CertificateParams, DnType, KeyPair, SanType};

use super::*;

fn certificate(common_name: &str, uris: &[&str]) -> Vec<u8> {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, common_name);
    params.subject_alt_names =
        uris.iter().map(|uri| SanType::URI((*uri).try_into().unwrap())).collect();
    params.not_after = rcgen::date_time_ymd(2040, 1, 2);
    let key = KeyPair::generate().unwrap();
    params.self_signed(&key).unwrap().der().to_vec()
}

fn read(common_name: &str, uris: &[&str]) -> Result<Principal, String> {
    principal(&certificate(common_name, uris)).map_err(|failure| {
        assert_eq!(failure.reason(), reason::CERTIFICATE_UNKNOWN);
        failure.to_string()
    })
}

#[test]
fn agents_are_named_by_uri_or_common_name() {
    let agent = read("whatever", &["https://example.test", "airfleet://shard/eu-1"]).unwrap();
    assert_eq!((agent.subject.as_str(), agent.role), ("shard:eu-1", Role::Agent));
    assert!(agent.is_agent_for("eu-1") && !agent.is_agent_for("eu-2"));
    assert_eq!(agent.expires_at.unwrap().to_string(), "2040-01-02T00:00:00Z");
    assert!(read("shard:eu-2", &[]).unwrap().is_agent_for("eu-2"));
}

#[test]
fn users_have_the_role_that_was_signed() {
    let user = read("", &["airfleet://user/ops@example.test?role=operator"]).unwrap();
    assert_eq!((user.subject.as_str(), user.role), ("user:ops@example.test", Role::Operator));
    let tenant = read("", &["airfleet://user/ci?role=tenant&namespaces=payments,ml-*"]).unwrap();
    assert!(tenant.may_write_namespace("ml-ads") && !tenant.may_write_namespace("pay"));
}

#[test]
fn others_are_nobody() {
    for (common_name, uri, expected) in [
        ("alice", None, "neither an airfleet:// URI nor a shard: common name"),
        ("shard:*", None, "not a name"),
        ("shard:a", Some("airfleet://user/a?role=king"), "unknown role"),
        ("shard:a", Some("airfleet://user/a"), "no role"),
        ("", Some("airfleet://user/a?role=tenant"), "a tenant has namespaces"),
        ("", Some("airfleet://user/a?role=agent"), "airfleet://shard/"),
        ("", Some("airfleet://user/a?role=admin&x=1"), "parameter"),
        ("", Some("airfleet://shard/*"), "not a name"),
        ("", Some("airfleet://node/a"), "neither airfleet://shard/"),
    ] {
        let error = read(common_name, uri.as_slice()).unwrap_err();
        assert!(error.contains(expected), "{error}");
    }
    assert!(principal(b"garbage").is_err());
}
