//! Manifest entries from YAML and back.
//!
//! A file holds any number of documents. Each problem carries its line and column in the file, and
//! reading goes on with the next document, so that one run shows the first problem of each. A
//! `status`, which is what the fleet says of an entry, is passed over: what was printed can be
//! edited and applied.

use serde::{
    Deserialize, Serialize,
    de::{DeserializeOwned, IgnoredAny},
};

use super::{
    API_VERSION, DOCUMENTS_MAX, Entry, Metadata, Namespace, NamespaceSpec, Shard, ShardSpec,
};

/// Why a document is not a manifest entry, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}, column {column}: {message}")]
pub struct Problem {
    /// Line in the text, from 1.
    pub line: u64,
    /// Column in the line, from 1.
    pub column: u64,
    /// What is wrong.
    pub message: String,
}

/// An entry and where its document begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Located {
    /// Line of the document's first line, from 1.
    pub line: u64,
    /// The entry. It is well formed, but not validated.
    pub entry: Entry,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Header {
    #[serde(default)]
    api_version: String,
    #[serde(default)]
    kind: String,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Document<S> {
    api_version: String,
    kind: String,
    metadata: Metadata,
    spec: S,
    #[serde(default, skip_serializing)]
    #[allow(dead_code, reason = "named here so that it is a known field")]
    status: IgnoredAny,
}

/// Shards may leave the spec out: everything in it has a default.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ShardDocument {
    #[allow(dead_code, reason = "read through Header; named here so that it is a known field")]
    api_version: String,
    #[allow(dead_code, reason = "read through Header; named here so that it is a known field")]
    kind: String,
    metadata: Metadata,
    #[serde(default)]
    spec: ShardSpec,
    #[serde(default)]
    #[allow(dead_code, reason = "named here so that it is a known field")]
    status: IgnoredAny,
}

/// Reads all documents of a text. Empty documents are skipped.
pub fn parse(text: &str) -> Result<Vec<Located>, Vec<Problem>> {
    let mut entries = Vec::new();
    let mut problems = Vec::new();
    for (first_line, document) in documents(text) {
        if entries.len() + problems.len() >= DOCUMENTS_MAX {
            problems.push(Problem {
                line: first_line,
                column: 1,
                message: format!("more than {DOCUMENTS_MAX} documents in one file; split it"),
            });
            break;
        }
        match parse_document(document, first_line) {
            Ok(Some(entry)) => entries.push(Located { line: first_line, entry }),
            Ok(None) => {}
            Err(problem) => problems.push(problem),
        }
    }
    if problems.is_empty() { Ok(entries) } else { Err(problems) }
}

/// Splits at lines that begin with `---`: in YAML these end a document wherever they stand.
/// Gives each document's first line, from 1, and its text.
fn documents(text: &str) -> Vec<(u64, &str)> {
    let mut documents = Vec::new();
    let (mut first_line, mut start, mut offset) = (1, 0, 0);
    for (index, line) in text.split_inclusive('\n').enumerate() {
        let is_marker = line
            .strip_prefix("---")
            .is_some_and(|rest| rest.is_empty() || rest.starts_with(char::is_whitespace));
        if is_marker {
            documents.push((first_line, &text[start..offset]));
            (first_line, start) = (index as u64 + 2, offset + line.len());
        }
        offset += line.len();
    }
    documents.push((first_line, &text[start..]));
    documents
}

fn parse_document(text: &str, first_line: u64) -> Result<Option<Entry>, Problem> {
    let is_blank = text.lines().all(|line| {
        let line = line.trim();
        line.is_empty() || line.starts_with('#')
    });
    if is_blank {
        return Ok(None);
    }
    let header: Header = read(text, first_line)?;
    let fail = |message: String| Problem { line: first_line, column: 1, message };
    if header.api_version != API_VERSION {
        return Err(fail(if header.api_version.is_empty() {
            format!("apiVersion is missing; write `apiVersion: {API_VERSION}`")
        } else {
            format!(
                "apiVersion {:?} is not known; this version reads {API_VERSION}",
                header.api_version
            )
        }));
    }
    match header.kind.as_str() {
        "Namespace" => {
            let Document::<NamespaceSpec> { metadata, spec, .. } = read(text, first_line)?;
            Ok(Some(Entry::Namespace(Namespace { metadata, spec })))
        }
        "Shard" => {
            let ShardDocument { metadata, spec, .. } = read(text, first_line)?;
            Ok(Some(Entry::Shard(Shard { metadata, spec })))
        }
        "" => Err(fail("kind is missing; write `kind: Namespace` or `kind: Shard`".into())),
        other => Err(fail(format!("kind {other:?} is not known; use Namespace or Shard"))),
    }
}

fn read<T: DeserializeOwned>(text: &str, first_line: u64) -> Result<T, Problem> {
    serde_saphyr::from_str(text).map_err(|error| {
        let location = error.location().filter(|at| at.line() > 0);
        Problem {
            line: location.map_or(first_line, |at| first_line - 1 + at.line()),
            column: location.map_or(1, |at| at.column().max(1)),
            message: plain_message(&error),
        }
    })
}

/// The first line of the parser's message, without the place, which [`Problem`] gives itself.
fn plain_message(error: &serde_saphyr::Error) -> String {
    let message = error.without_snippet().to_string();
    let first = message.lines().next().unwrap_or_default();
    let first = first.strip_prefix("error: ").unwrap_or(first);
    let cut = first.find(" at line ").unwrap_or(first.len());
    let first = match first[..cut].strip_prefix("line ") {
        Some(rest) => rest.split_once(": ").map_or(rest, |(_, text)| text),
        None => &first[..cut],
    };
    first.chars().take(300).collect()
}

/// The entry as a YAML document, without a leading marker.
pub fn to_yaml(entry: &Entry) -> String {
    let text = match entry {
        Entry::Namespace(Namespace { metadata, spec }) => {
            serde_saphyr::to_string(&document("Namespace", metadata, spec))
        }
        Entry::Shard(Shard { metadata, spec }) => {
            serde_saphyr::to_string(&document("Shard", metadata, spec))
        }
    };
    text.expect("entries hold maps, lists, numbers and text only, which YAML can write")
}

fn document<'a, S>(kind: &str, metadata: &Metadata, spec: &'a S) -> Document<&'a S> {
    Document {
        api_version: API_VERSION.into(),
        kind: kind.into(),
        metadata: metadata.clone(),
        spec,
        status: IgnoredAny,
    }
}

impl Serialize for Entry {
    /// The same fields as the YAML document, `apiVersion` and `kind` included.
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Entry::Namespace(Namespace { metadata, spec }) => {
                document("Namespace", metadata, spec).serialize(serializer)
            }
            Entry::Shard(Shard { metadata, spec }) => {
                document("Shard", metadata, spec).serialize(serializer)
            }
        }
    }
}
