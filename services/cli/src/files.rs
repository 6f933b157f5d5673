//! Manifest entries from what `-f` names: files, folders and standard input.
//!
//! Everything that is wrong is found before anything is sent, and each problem is shown with its
//! file, line and column. What only the registry knows is refused by the registry; its field paths
//! are brought back here to the places in the files.

mod locate;
#[cfg(test)]
mod tests;

use std::{
    collections::{HashMap, hash_map},
    fs,
    io::{self, Read},
    path::{Path, PathBuf},
};

use airfleet_domain::manifest::{self, Entry};

use self::locate::locate;
use crate::error::{Error, Result};

/// Names standard input on the command line.
pub const STDIN: &str = "-";

/// What files in folders must end in. Files that are named are read whatever their name.
const EXTENSIONS: [&str; 3] = ["yaml", "yml", "json"];
/// Largest file.
const FILE_MAX_BYTES: u64 = 64 * 1024 * 1024;
/// Largest sum of all files.
const TOTAL_MAX_BYTES: usize = 512 * 1024 * 1024;
/// Deepest folder below the one that was named; links may lead in circles.
const DEPTH_MAX: usize = 32;
/// Most problems that are shown at once.
const PROBLEMS_MAX: usize = 100;

/// One entry and where it was read.
#[derive(Clone, Debug)]
pub struct Item {
    /// The entry; valid by itself.
    pub entry: Entry,
    source: usize,
    line: u64,
}

impl Item {
    /// `namespace/payments`.
    pub fn id(&self) -> String {
        format!("{}/{}", self.entry.kind(), self.entry.name())
    }
}

/// All entries that were read: shards first, else in the order of the files.
#[derive(Debug)]
pub struct Manifest {
    sources: Vec<Source>,
    /// The entries.
    pub items: Vec<Item>,
}

#[derive(Debug)]
struct Source {
    name: String,
    text: String,
}

/// Reads and checks everything that `names` name.
pub fn read(names: &[String], recursive: bool, stdin: impl Read) -> Result<Manifest> {
    let sources = collect(names, recursive, stdin)?;
    let mut items = Vec::new();
    let mut problems = Vec::new();
    for (index, source) in sources.iter().enumerate() {
        match manifest::parse(&source.text) {
            Ok(entries) => items.extend(entries.into_iter().map(|e| Item {
                entry: e.entry,
                source: index,
                line: e.line,
            })),
            Err(found) => problems.extend(
                found
                    .iter()
                    .map(|p| format!("{}:{}:{}: {}", source.name, p.line, p.column, p.message)),
            ),
        }
    }
    if !problems.is_empty() {
        return Err(refused("cannot read the manifest", problems).hint("nothing was sent"));
    }
    let mut manifest = Manifest { sources, items };
    let problems = manifest.problems();
    if !problems.is_empty() {
        return Err(refused("the manifest is not valid", problems).hint("nothing was sent"));
    }
    if manifest.items.is_empty() {
        return Err(Error::new(format!("no manifest entries in {}", names.join(", "))).hint(
            "files need `apiVersion: airfleet.dev/v1` and `kind: Namespace` or `kind: Shard`; in \
             folders they must end in .yaml, .yml or .json",
        ));
    }
    // Shards first, so that namespaces find their place at once.
    manifest.items.sort_by_key(|item| matches!(item.entry, Entry::Namespace(_)));
    Ok(manifest)
}

fn refused(what: &str, mut problems: Vec<String>) -> Error {
    let total = problems.len();
    if total > PROBLEMS_MAX {
        problems.truncate(PROBLEMS_MAX);
        problems.push(format!("and {} more", total - PROBLEMS_MAX));
    }
    Error::new(what).with_details(problems)
}

impl Manifest {
    /// Where an item was read, as `file:line`.
    pub fn place(&self, item: &Item) -> String {
        format!("{}:{}", self.sources[item.source].name, item.line)
    }

    /// A line about a field of an item: place, item, path and what is wrong. `field` is a path in
    /// the terms of the API.
    pub fn complaint(&self, item: &Item, field: &str, message: &str) -> String {
        let source = &self.sources[item.source];
        let path = yaml_path(field);
        let document = document_at(&source.text, item.line);
        let place = match locate(document, item.line, &path) {
            Some(at) => format!("{}:{}:{}", source.name, at.line, at.column),
            None => self.place(item),
        };
        format!("{place}: {}: {path}: {message}", item.id())
    }

    /// Everything that is wrong and can be seen without the registry.
    fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        let mut seen: HashMap<(&str, &str), &Item> = HashMap::new();
        for item in &self.items {
            for violation in item.entry.validate() {
                problems.push(self.complaint(item, &violation.field, &violation.message));
            }
            match seen.entry((item.entry.kind(), item.entry.name())) {
                hash_map::Entry::Vacant(vacant) => {
                    vacant.insert(item);
                }
                hash_map::Entry::Occupied(first) => {
                    let first = self.place(first.get());
                    let message = format!("is given twice, first at {first}");
                    problems.push(self.complaint(item, "name", &message));
                }
            }
        }
        problems.extend(self.overlaps());
        problems
    }

    /// Prefixes of one namespace that begin prefixes of another.
    fn overlaps(&self) -> Vec<String> {
        let mut prefixes: Vec<(&str, usize, &Item)> = Vec::new();
        for item in &self.items {
            if let Entry::Namespace(namespace) = &item.entry {
                let own = namespace.spec.prefixes.iter().enumerate();
                prefixes.extend(own.map(|(index, prefix)| (prefix.as_str(), index, item)));
            }
        }
        prefixes.sort_by_key(|(prefix, index, item)| (*prefix, item.entry.name(), *index));
        let mut problems = Vec::new();
        // In this order, what begins a prefix stands before it, with nothing but more of the same
        // beginning between them.
        let mut above: Vec<(&str, &Item)> = Vec::new();
        for (prefix, index, item) in prefixes {
            while above.last().is_some_and(|(start, _)| !prefix.starts_with(start)) {
                above.pop();
            }
            let other = above.iter().find(|(_, other)| other.entry.name() != item.entry.name());
            if let Some((start, other)) = other {
                let message = format!(
                    "{prefix:?} starts with {start:?}, a prefix of {} at {}; each dag_id must have \
                     one owner",
                    other.id(),
                    self.place(other),
                );
                problems.push(self.complaint(item, &format!("prefixes[{index}]"), &message));
            }
            if !prefix.is_empty() {
                above.push((prefix, item));
            }
        }
        problems
    }
}

/// The document that begins at `line` (from 1) of a file.
fn document_at(text: &str, line: u64) -> &str {
    let line = usize::try_from(line).unwrap_or(usize::MAX).saturating_sub(1);
    let start: usize = text.split_inclusive('\n').take(line).map(str::len).sum();
    let rest = &text[start..];
    let is_marker = |line: &str| {
        line.strip_prefix("---")
            .is_some_and(|rest| rest.is_empty() || rest.starts_with(char::is_whitespace))
    };
    let end = rest.split_inclusive('\n').take_while(|line| !is_marker(line)).map(str::len).sum();
    &rest[..end]
}

/// A path in the terms of the API as a path in the YAML document.
fn yaml_path(field: &str) -> String {
    let first = field.split(['.', '[']).next().unwrap_or_default();
    let section = match first {
        "name" | "labels" | "description" => "metadata",
        _ => "spec",
    };
    let mut path = format!("{section}.");
    let (mut in_brackets, mut raise) = (false, false);
    for c in field.chars() {
        match c {
            '[' => in_brackets = true,
            ']' => in_brackets = false,
            _ => {}
        }
        if c == '_' && !in_brackets {
            raise = true;
        } else if raise {
            path.extend(c.to_uppercase());
            raise = false;
        } else {
            path.push(c);
        }
    }
    path
}

fn collect(names: &[String], recursive: bool, mut stdin: impl Read) -> Result<Vec<Source>> {
    let mut sources = Vec::new();
    let mut total = 0;
    let mut add = |name: String, text: String| {
        total += text.len();
        if total > TOTAL_MAX_BYTES {
            let limit = crate::human::bytes(TOTAL_MAX_BYTES as i64);
            return Err(Error::new(format!("the files hold more than {limit} together"))
                .hint("apply them in several parts"));
        }
        sources.push(Source { name, text });
        Ok(())
    };
    for (index, name) in names.iter().enumerate() {
        if name == STDIN {
            if names[..index].contains(name) {
                return Err(Error::new("standard input can be read only once; give `-f -` once"));
            }
            add("<stdin>".into(), text_of("standard input", &mut stdin)?)?;
        } else if name.starts_with("http://") || name.starts_with("https://") {
            return Err(Error::new(format!("{name} is not a file"))
                .hint(format!("fetch it first: curl -fsS {name} | airfleet apply -f -")));
        } else {
            let path = Path::new(name);
            let metadata = fs::metadata(path)
                .map_err(|error| Error::caused(format!("cannot read {name}"), &error))?;
            if metadata.is_dir() {
                for file in files_below(path, recursive)? {
                    add(file.display().to_string(), text_of_file(&file)?)?;
                }
            } else {
                add(name.clone(), text_of_file(path)?)?;
            }
        }
    }
    Ok(sources)
}

/// The manifest files of a folder in the order of their paths. Hidden ones are left out.
fn files_below(folder: &Path, recursive: bool) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let mut folders = vec![(folder.to_owned(), 0)];
    while let Some((folder, depth)) = folders.pop() {
        let fail =
            |error: io::Error| Error::caused(format!("cannot read {}", folder.display()), &error);
        for entry in fs::read_dir(&folder).map_err(fail)? {
            let path = entry.map_err(fail)?.path();
            let is_hidden = path.file_name().is_some_and(|name| name.as_encoded_bytes()[0] == b'.');
            if is_hidden {
                continue;
            }
            if path.is_dir() {
                if recursive && depth < DEPTH_MAX {
                    folders.push((path, depth + 1));
                }
            } else if path
                .extension()
                .is_some_and(|own| EXTENSIONS.iter().any(|known| own.eq_ignore_ascii_case(known)))
            {
                files.push(path);
            }
        }
    }
    files.sort();
    Ok(files)
}

fn text_of_file(path: &Path) -> Result<String> {
    let name = path.display();
    let file = fs::File::open(path)
        .map_err(|error| Error::caused(format!("cannot read {name}"), &error))?;
    text_of(&name.to_string(), file)
}

/// All text of a reader.
pub fn text_of(name: &str, reader: impl Read) -> Result<String> {
    let mut bytes = Vec::new();
    reader
        .take(FILE_MAX_BYTES + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| Error::caused(format!("cannot read {name}"), &error))?;
    if bytes.len() as u64 > FILE_MAX_BYTES {
        let limit = crate::human::bytes(FILE_MAX_BYTES as i64);
        return Err(Error::new(format!("{name} is larger than {limit}")).hint("split it"));
    }
    String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        let line = error.as_bytes()[..at].split(|byte| *byte == b'\n').count();
        Error::new(format!("{name}:{line}: is not UTF-8 text"))
    })
}
