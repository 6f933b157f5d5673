use super::{blobs::BlobHash, command::tell, names::parse_tree, *};

#[test]
fn names_of_refs_are_names_and_nothing_else() {
    for text in ["main", "feature/x", "v1.2.3", "refs/heads/main", "a@b"] {
        assert_eq!(Reference::parse(text), Some(Reference::Named(text.into())), "{text}");
    }
    for text in [
        "--upload-pack=touch /tmp/x",
        "-x",
        "a..b",
        "a b",
        "a:b",
        "a~1",
        "a^",
        "a*",
        "/a",
        "a/",
        "a.lock",
        "a@{1}",
        "a\nb",
        "a//b",
        ".a",
        "a/.b",
        "a\\b",
        "[a]",
        "?",
    ] {
        assert_eq!(Reference::parse(text), None, "{text}");
    }
    let commit = "0123456789abcdef0123456789abcdef01234567";
    assert_eq!(Reference::parse(commit), Some(Reference::Commit(commit.into())));
    assert_eq!(Reference::parse(""), Some(Reference::Default));
}

#[test]
fn what_git_complains_of_carries_no_credentials() {
    let told = tell("fatal: unable to access 'https://me:hunter2@git.example.net/x.git/': no\n\n");
    assert_eq!(told, "fatal: unable to access 'https://git.example.net/x.git/': no");
    assert_eq!(tell("a\nb\u{1b}[31m\n"), "a; b[31m");
    assert_eq!(tell("ssh://git@host/a@b and a@b"), "ssh://host/a@b and a@b");
}

#[test]
fn trees_are_read_and_submodules_refused() {
    let id = "0123456789abcdef0123456789abcdef01234567";
    let tree = format!(
        "100644 blob {id}     12\tdags/a b.py\0100755 blob {id}       0\trun.sh\0\
         120000 blob {id}       4\tlink.py\0"
    );
    let limits = Limits::default();
    let (files, links) = parse_tree(tree.as_bytes(), &limits).expect("is plain");
    let names: Vec<&str> = files.iter().map(|file| file.path.as_str()).collect();
    assert_eq!(names, ["dags/a b.py", "run.sh"]);
    assert_eq!((files[0].size_bytes, files[1].executable, links.len()), (12, true, 1));

    let sub = format!("160000 commit {id}       -\tshared\0");
    let error = parse_tree(sub.as_bytes(), &limits).expect_err("is no file");
    assert_eq!(error.code(), Code::Submodule);
    let out = format!("100644 blob {id}       1\ta/../../b.py\0");
    let error = parse_tree(out.as_bytes(), &limits).expect_err("leaves");
    assert_eq!(error.code(), Code::PathUnsafe);
    assert!(parse_tree(b"nonsense\0", &limits).is_err());
}

#[test]
fn blobs_are_hashed_as_git_hashes_them() {
    let file = |tag: &str, size_bytes| Listed {
        path: BundlePath::parse("a").expect("is plain"),
        size_bytes,
        tag: tag.into(),
        executable: false,
    };
    let hash = |tag: &str, bytes: &[u8]| {
        let mut hash = BlobHash::new(&file(tag, bytes.len() as u64));
        hash.update(bytes);
        hash.finish()
    };
    assert_eq!(hash("", b"hello\n"), "ce013625030ba8dba906f756967f9e9ca394464a");
    let long = "0".repeat(64);
    assert_eq!(
        hash(&long, b"hello\n"),
        "2cf8d83d9ee29543b34a87727421fdecb7e3f3a183d337639025de576db9ebb4"
    );
}
