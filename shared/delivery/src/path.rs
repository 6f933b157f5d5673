//! Paths of files in a bundle.
//!
//! Invariant: whatever is a [`BundlePath`] can be joined to a folder and stays in it. Sources are
//! written by strangers; nothing becomes a path on this machine without passing here.

use std::{borrow::Borrow, fmt, sync::Arc};

use crate::error::{Code, Refusal};

/// Longest path, in bytes.
pub(crate) const PATH_MAX_BYTES: usize = 1024;
/// Longest name of a file or folder, in bytes: what Linux file systems take.
const NAME_MAX_BYTES: usize = 255;
/// Deepest folder.
const DEPTH_MAX: usize = 32;

/// A relative path of plain names, separated by `/`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct BundlePath(Arc<str>);

impl BundlePath {
    /// The path, if it is safe; else why it is refused.
    pub(crate) fn parse(text: &str) -> Result<Self, Refusal> {
        match fault(text) {
            None => Ok(Self(text.into())),
            Some(rule) => Err(Refusal::new(Code::PathUnsafe, text, rule)),
        }
    }

    /// As [`BundlePath::parse`], from what a file system or an archive gives.
    pub(crate) fn parse_bytes(bytes: &[u8]) -> Result<Self, Refusal> {
        match std::str::from_utf8(bytes) {
            Ok(text) => Self::parse(text),
            Err(_) => {
                let text = String::from_utf8_lossy(bytes);
                Err(Refusal::new(Code::PathUnsafe, &text, "the name is not UTF-8; rename it"))
            }
        }
    }

    /// The text.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    /// The folders that it lies in, the innermost first.
    pub(crate) fn parents(&self) -> impl Iterator<Item = &str> {
        let mut rest = self.as_str();
        std::iter::from_fn(move || {
            let (parent, _) = rest.rsplit_once('/')?;
            rest = parent;
            Some(parent)
        })
    }

    /// Whether deliveries leave it out: what version control and Python keep for themselves.
    pub(crate) fn is_left_out(&self) -> bool {
        self.as_str().split('/').any(is_left_out) || has_extension(self.as_str(), "pyc")
    }

    /// Whether Airflow may parse it: a Python file or an archive of them.
    pub(crate) fn may_be_parsed(&self) -> bool {
        has_extension(self.as_str(), "py") || has_extension(self.as_str(), "zip")
    }

    /// Whether it is Python source.
    pub(crate) fn is_python(&self) -> bool {
        has_extension(self.as_str(), "py")
    }
}

/// Whether a file or folder of that name is left out of bundles.
pub(crate) fn is_left_out(name: &str) -> bool {
    matches!(name, ".git" | "__pycache__" | ".airfleet")
}

fn has_extension(path: &str, wanted: &str) -> bool {
    let name = path.rsplit_once('/').map_or(path, |(_, name)| name);
    name.rsplit_once('.').is_some_and(|(_, extension)| extension == wanted)
}

fn fault(text: &str) -> Option<&'static str> {
    if text.len() > PATH_MAX_BYTES {
        return Some("the path is longer than 1024 bytes; shorten it");
    }
    let mut depth = 0;
    for name in text.split('/') {
        depth += 1;
        if name.is_empty() || name == "." || name == ".." {
            return Some("the path must be relative, without empty names, `.` or `..`");
        }
        if name.len() > NAME_MAX_BYTES {
            return Some("a name is longer than 255 bytes; shorten it");
        }
        if name.chars().any(|c| c.is_control() || c == '\\') {
            return Some("a name holds a backslash or a control character; rename it");
        }
    }
    (depth > DEPTH_MAX).then_some("folders are nested deeper than 32; flatten them")
}

impl Borrow<str> for BundlePath {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for BundlePath {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl fmt::Debug for BundlePath {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:?}", &self.0)
    }
}

#[cfg(test)]
mod tests {
    use std::path::{Component, Path};

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_would_leave_the_folder_is_refused() {
        let long = "a/".repeat(600);
        let deep = format!("{}x", "a/".repeat(32));
        let wide = "n".repeat(256);
        for text in [
            "",
            "/",
            "/etc/passwd",
            "..",
            "../x",
            "a/../b",
            "a/..",
            "./a",
            "a/./b",
            "a//b",
            "a/",
            "a\\..\\b",
            "a\0b",
            "a\nb",
            "\u{7f}",
            &long,
            &deep,
            &wide,
        ] {
            let refusal = BundlePath::parse(text).expect_err(text);
            assert_eq!(refusal.code, Code::PathUnsafe, "{text:?}");
        }
        assert!(BundlePath::parse_bytes(b"a/\xff.py").is_err());
        for text in ["a.py", "a/b c/d.py", "..a/b..", "ünder/söme.py", ".airflowignore"] {
            assert_eq!(BundlePath::parse(text).expect(text).as_str(), text);
        }
    }

    #[test]
    fn folders_are_told_from_within() {
        let path = BundlePath::parse("a/b/c.py").expect("is plain");
        assert_eq!(path.parents().collect::<Vec<_>>(), ["a/b", "a"]);
        assert!(path.is_python() && path.may_be_parsed() && !path.is_left_out());
        for text in ["a/.git/HEAD", "__pycache__/x", "a/x.pyc", ".airfleet/x"] {
            assert!(BundlePath::parse(text).expect(text).is_left_out(), "{text}");
        }
        assert!(!BundlePath::parse("a/.gitignore").expect("is plain").is_left_out());
    }

    proptest! {
        #[test]
        fn whatever_passes_stays_in_its_folder(text in r"[a./\\ \x00-\x1f]{0,12}") {
            if let Ok(path) = BundlePath::parse(&text) {
                let plain = |c| matches!(c, Component::Normal(_));
                prop_assert!(Path::new(path.as_str()).components().all(plain));
                prop_assert_eq!(Path::new(path.as_str()).components().count(), text.split('/').count());
            }
        }
    }
}
