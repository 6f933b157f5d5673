//! Reads the process table from `/proc`.
//!
//! Knows how to list processes and their kinship; must not know why anyone
//! asks. A process that ends while it is being read is left out.

use std::collections::HashSet;
use std::fs;

/// One living process: zombies are not listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) pid: i32,
    parent: i32,
    group: i32,
}

/// Every living process that may be read.
pub(crate) fn processes() -> Vec<Entry> {
    let Ok(folder) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    folder
        .flatten()
        .filter(|entry| entry.file_name().as_encoded_bytes().iter().all(u8::is_ascii_digit))
        .filter_map(|entry| {
            // Bytes, not text: a command name need not be UTF-8.
            let stat = fs::read(entry.path().join("stat")).ok()?;
            parse(&String::from_utf8_lossy(&stat))
        })
        .collect()
}

/// The members of process group `group` and all descendants of these.
///
/// Descendants count because some servers (PostgreSQL) give each child a
/// session, thus a group, of its own.
pub(crate) fn family(group: i32) -> Vec<i32> {
    let all = processes();
    let mut family: HashSet<i32> =
        all.iter().filter(|entry| entry.group == group).map(|entry| entry.pid).collect();
    loop {
        let before = family.len();
        for entry in &all {
            if family.contains(&entry.parent) {
                family.insert(entry.pid);
            }
        }
        if family.len() == before {
            return family.into_iter().collect();
        }
    }
}

/// Whether the environment that process `pid` was started with holds `entry`
/// (`NAME=value`).
pub(crate) fn has_environment(pid: i32, entry: &str) -> bool {
    fs::read(format!("/proc/{pid}/environ"))
        .is_ok_and(|bytes| bytes.split(|byte| *byte == 0).any(|e| e == entry.as_bytes()))
}

fn parse(stat: &str) -> Option<Entry> {
    let pid = stat.split(' ').next()?.parse().ok()?;
    // The command name stands in parentheses and may itself contain any of
    // " ()", so only the last parenthesis ends it.
    let mut rest = stat.rsplit_once(") ")?.1.split(' ');
    if matches!(rest.next()?, "Z" | "X") {
        return None;
    }
    Some(Entry { pid, parent: rest.next()?.parse().ok()?, group: rest.next()?.parse().ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_name_may_contain_parentheses_and_spaces() {
        let entry = parse("42 (a) b (c)) S 7 40 40 0 -1").unwrap();
        assert_eq!((entry.pid, entry.parent, entry.group), (42, 7, 40));
    }

    #[test]
    fn zombies_are_left_out() {
        assert_eq!(parse("42 (gone) Z 7 40 40 0 -1"), None);
    }

    #[test]
    fn this_process_is_listed() {
        let me = i32::try_from(std::process::id()).unwrap();
        assert!(processes().iter().any(|entry| entry.pid == me));
    }
}
