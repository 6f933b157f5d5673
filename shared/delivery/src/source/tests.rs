use super::*;

fn source(uri: &str, reference: &str, path: &str) -> manifest::Source {
    manifest::Source { uri: uri.into(), reference: reference.into(), path: path.into() }
}

fn open(sources: &Sources, uri: &str, reference: &str, path: &str) -> Result<Source, Error> {
    sources.open(&source(uri, reference, path), Path::new("/srv/airflow/dags"))
}

#[test]
fn every_kind_of_source_is_known() {
    let sources = Sources::new(None, BTreeMap::new(), 4);
    let kind = |uri: &str, reference: &str, path: &str| match open(&sources, uri, reference, path) {
        Ok(Source::Folder(_)) => "folder",
        Ok(Source::Objects(_)) => "objects",
        Ok(Source::Git(_)) => "git",
        Err(error) => error.code().as_str(),
    };
    assert_eq!(kind("/srv/bundles/payments", "", ""), "folder");
    assert_eq!(kind("file:///srv/bundles/payments", "", ""), "folder");
    assert_eq!(kind("s3://bundles/payments", "", ""), "objects");
    assert_eq!(kind("s3://bundles", "", ""), "objects");
    assert_eq!(kind("s3://bundles", "", "payments/"), "objects");
    assert_eq!(kind("/srv/bundles", "", "payments"), "folder");
    assert_eq!(kind("git+https://git.example.net/dags.git", "main", "payments"), "git");
    assert_eq!(kind("git+ssh://git@git.example.net/dags.git", "", ""), "git");
    assert_eq!(kind("git+file:///srv/dags.git", "v1.0", ""), "git");
    for (uri, reference, path) in [
        ("ftp://x/y", "", ""),
        ("payments", "", ""),
        ("/srv/../etc", "", ""),
        ("/srv/x", "main", ""),
        ("s3://b/x", "", "../x"),
        ("/srv/x", "", "/etc"),
        ("s3://", "", ""),
        ("s3://user:word@b/x", "", ""),
        ("s3://b/x?versionId=1", "", ""),
        ("s3://b/a/../b", "", ""),
        ("git+http://git.example.net/x", "", ""),
        ("git+https://me:word@git.example.net/x", "", ""),
        ("git+ssh://-oProxyCommand=x/y", "", ""),
        ("git+https://git.example.net/x", "--upload-pack=x", ""),
        ("git+https://git.example.net/x", "", "../x"),
        ("git+ext::sh -c x", "", ""),
        ("/srv/airflow/dags", "", ""),
        ("/srv/airflow", "", ""),
        ("/srv/airflow/dags/payments", "", ""),
    ] {
        assert_eq!(kind(uri, reference, path), "SOURCE_INVALID", "{uri} {reference} {path}");
    }
}

#[test]
fn folders_of_this_machine_must_be_allowed() {
    let root = tempfile::tempdir().expect("a folder");
    let (allowed, other) = (root.path().join("allowed"), root.path().join("other"));
    for folder in [&allowed, &other] {
        std::fs::create_dir(folder).expect("is made");
    }
    std::os::unix::fs::symlink(&other, allowed.join("sly")).expect("is made");
    let sources = Sources::new(Some(vec![allowed.clone()]), BTreeMap::new(), 4);
    let code = |uri: String| open(&sources, &uri, "", "").err().map(|error| error.code());
    assert_eq!(code(allowed.display().to_string()), None);
    assert_eq!(code(format!("{}/payments", allowed.display())), None);
    assert_eq!(code(format!("git+file://{}/x.git", allowed.display())), None);
    for uri in [
        other.display().to_string(),
        format!("{}/sly", allowed.display()),
        format!("git+file://{}", other.display()),
        "/etc".to_owned(),
    ] {
        assert_eq!(code(uri.clone()), Some(Code::SourceNotAllowed), "{uri}");
    }
    let none = Sources::new(Some(Vec::new()), BTreeMap::new(), 4);
    assert!(open(&none, "/srv/bundles", "", "").is_err());
}

#[test]
fn a_password_is_not_repeated() {
    let sources = Sources::new(None, BTreeMap::new(), 4);
    let error = open(&sources, "git+https://me:hunter2@git.example.net/x", "", "");
    let text = format!("{:?}", error.expect_err("is refused"));
    assert!(!text.contains("hunter2") && text.contains("git.example.net/x"), "{text}");
}

#[test]
fn an_unknown_option_of_a_store_is_told() {
    let options = BTreeMap::from([("endpiont".to_owned(), "http://x".to_owned())]);
    let sources = Sources::new(None, BTreeMap::from([("s3".to_owned(), options)]), 4);
    let error = open(&sources, "s3://bundles/x", "", "").expect_err("is a typing error");
    assert_eq!(error.code(), Code::SourceInvalid);
}
