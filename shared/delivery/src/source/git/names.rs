//! Names of what a repository holds: refs, commits, the paths of a tree.

use std::sync::Arc;

use crate::{
    bundle::{Limits, Listed, Tally},
    error::{Code, Error, Refusal},
    path::BundlePath,
};

/// What is delivered of a repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Reference {
    /// What the repository offers first.
    Default,
    /// A branch or a tag, or a full name such as `refs/heads/main`.
    Named(Arc<str>),
    /// One commit, for ever.
    Commit(Arc<str>),
}

impl Reference {
    /// `None` where `text` cannot be the name of anything.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        if text.is_empty() {
            return Some(Self::Default);
        }
        if is_commit(text) {
            return Some(Self::Commit(text.into()));
        }
        // As git itself has it, and never what could be an option or a pattern.
        let odd = |c: char| c.is_control() || c.is_whitespace() || "~^:?*[\\".contains(c);
        let bad = text.starts_with(['-', '/', '.'])
            || text.ends_with(['/', '.'])
            || ["..", "//", "@{", "/.", ".lock"].iter().any(|part| text.contains(part))
            || text.contains(odd);
        (!bad).then(|| Self::Named(text.into()))
    }
}

pub(super) fn is_commit(text: &str) -> bool {
    matches!(text.len(), 40 | 64)
        && text.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'a'..=b'f'))
}

/// What `ls-tree -r -z -l` prints: files, and symbolic links apart.
pub(super) fn parse_tree(
    output: &[u8],
    limits: &Limits,
) -> Result<(Vec<Listed>, Vec<Listed>), Error> {
    let odd = || Error::source(Code::SourceCorrupt, "git lists the tree in an unknown way");
    let (mut files, mut links) = (Vec::new(), Vec::new());
    let mut tally = Tally::new(limits);
    for record in output.split(|byte| *byte == 0).filter(|record| !record.is_empty()) {
        let tab = record.iter().position(|byte| *byte == b'\t').ok_or_else(odd)?;
        let head = std::str::from_utf8(&record[..tab]).map_err(|_| odd())?;
        let mut words = head.split_ascii_whitespace();
        let (Some(mode), Some(_), Some(id), Some(size)) =
            (words.next(), words.next(), words.next(), words.next())
        else {
            return Err(odd());
        };
        let path = BundlePath::parse_bytes(&record[tab + 1..])?;
        if path.is_left_out() {
            continue;
        }
        if mode == "160000" {
            let rule = "is a submodule; submodules are not delivered, copy their files";
            return Err(Refusal::new(Code::Submodule, path.as_str(), rule).into());
        }
        let size_bytes = size.parse().map_err(|_| odd())?;
        let executable = mode == "100755";
        tally.add(&path, size_bytes)?;
        let file = Listed { path, size_bytes, tag: id.into(), executable };
        if mode == "120000" { links.push(file) } else { files.push(file) }
    }
    Ok((files, links))
}
