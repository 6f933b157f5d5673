//! Field masks: which fields of an entry an update changes.

use airfleet_domain::labels::Labels;
use airfleet_domain::manifest::{Entry, Metadata, Namespace, Shard, Source};
use airfleet_domain::resources::Resources;
use airfleet_runtime::status::{Failure, FieldViolation};

/// Fields that only the registry sets, and the name. They may stand in a mask, as AIP wants it,
/// and are passed over.
const PASSED_OVER: [&str; 6] = ["name", "uid", "etag", "revision", "create_time", "update_time"];

/// `now` with the fields of `mask` from `wanted`; all of `wanted` where the mask is empty or `*`.
pub(super) fn merge(now: &Entry, wanted: &Entry, mask: &[String]) -> Result<Entry, Failure> {
    if mask.is_empty() || mask == ["*"] {
        return Ok(wanted.clone());
    }
    let mut merged = now.clone();
    let unknown: Vec<FieldViolation> = mask
        .iter()
        .enumerate()
        .filter(|(_, path)| !PASSED_OVER.contains(&path.as_str()))
        .filter(|(_, path)| !set_path(&mut merged, wanted, path))
        .map(|(index, path)| {
            let path: String = path.chars().take(80).collect();
            let rule = format!("{path:?} is no field of a {} that can be changed", now.kind());
            FieldViolation::new(format!("update_mask.paths[{index}]"), "UNKNOWN_FIELD", rule)
        })
        .collect();
    if unknown.is_empty() { Ok(merged) } else { Err(Failure::invalid(unknown)) }
}

/// Takes one field over. Whether there is such a field.
fn set_path(to: &mut Entry, from: &Entry, path: &str) -> bool {
    match (to, from) {
        (Entry::Namespace(to), Entry::Namespace(from)) => {
            metadata(&mut to.metadata, &from.metadata, path) || namespace(to, from, path)
        }
        (Entry::Shard(to), Entry::Shard(from)) => {
            metadata(&mut to.metadata, &from.metadata, path) || shard(to, from, path)
        }
        _ => false,
    }
}

fn metadata(to: &mut Metadata, from: &Metadata, path: &str) -> bool {
    match path {
        "labels" => to.labels.clone_from(&from.labels),
        "description" => to.description.clone_from(&from.description),
        _ => match path.strip_prefix("labels.") {
            Some(key) => label(&mut to.labels, &from.labels, key),
            None => return false,
        },
    }
    true
}

/// One label. Keys have dots of their own, so all that follows is the key, in backticks or not.
fn label(to: &mut Labels, from: &Labels, key: &str) {
    let key = key.strip_prefix('`').and_then(|key| key.strip_suffix('`')).unwrap_or(key);
    match from.get(key) {
        Some(value) => {
            to.insert(key.to_owned(), value.clone());
        }
        None => {
            to.remove(key);
        }
    }
}

fn namespace(to: &mut Namespace, from: &Namespace, path: &str) -> bool {
    let (to, from) = (&mut to.spec, &from.spec);
    match path {
        "owners" => to.owners.clone_from(&from.owners),
        "prefixes" => to.prefixes.clone_from(&from.prefixes),
        "demand" => to.demand = from.demand,
        "placement" => to.placement.clone_from(&from.placement),
        "placement.selector" => to.placement.selector.clone_from(&from.placement.selector),
        "placement.tolerations" => {
            to.placement.tolerations.clone_from(&from.placement.tolerations);
        }
        "placement.airflow_version" => {
            to.placement.airflow_version.clone_from(&from.placement.airflow_version);
        }
        "placement.region" => to.placement.region.clone_from(&from.placement.region),
        "placement.spread_group" => {
            to.placement.spread_group.clone_from(&from.placement.spread_group);
        }
        "guardrails" => to.guardrails.clone_from(&from.guardrails),
        "guardrails.queues" => to.guardrails.queues.clone_from(&from.guardrails.queues),
        "guardrails.pools" => to.guardrails.pools.clone_from(&from.guardrails.pools),
        "guardrails.kubernetes_namespaces" => {
            to.guardrails.kubernetes_namespaces.clone_from(&from.guardrails.kubernetes_namespaces);
        }
        "guardrails.kubernetes_clusters" => {
            to.guardrails.kubernetes_clusters.clone_from(&from.guardrails.kubernetes_clusters);
        }
        "guardrails.operators" => to.guardrails.operators.clone_from(&from.guardrails.operators),
        "guardrails.execution_timeout" => {
            to.guardrails.execution_timeout.clone_from(&from.guardrails.execution_timeout);
        }
        "guardrails.retries" => to.guardrails.retries.clone_from(&from.guardrails.retries),
        "guardrails.max_active_runs" => {
            to.guardrails.max_active_runs.clone_from(&from.guardrails.max_active_runs);
        }
        "guardrails.required_tags" => {
            to.guardrails.required_tags.clone_from(&from.guardrails.required_tags);
        }
        "guardrails.allowed_owners" => {
            to.guardrails.allowed_owners.clone_from(&from.guardrails.allowed_owners);
        }
        "guardrails.modes" => to.guardrails.modes.clone_from(&from.guardrails.modes),
        "guardrails.mode" => to.guardrails.mode = from.guardrails.mode,
        "source" => to.source.clone_from(&from.source),
        "source.uri" => source(&mut to.source).uri.clone_from(&given(from.source.as_ref()).uri),
        "source.ref" => {
            let reference = given(from.source.as_ref()).reference;
            source(&mut to.source).reference = reference;
        }
        "source.path" => source(&mut to.source).path = given(from.source.as_ref()).path,
        "pools" => to.pools.clone_from(&from.pools),
        "variables" => to.variables.clone_from(&from.variables),
        "connections" => to.connections.clone_from(&from.connections),
        "retention" => to.retention.clone_from(&from.retention),
        "retention.keep_days" => {
            let keep_days = from.retention.as_ref().map_or(0, |retention| retention.keep_days);
            to.retention.get_or_insert_default().keep_days = keep_days;
        }
        "retention.schedule" => {
            let schedule = from.retention.clone().unwrap_or_default().schedule;
            to.retention.get_or_insert_default().schedule = schedule;
        }
        "drift" => to.drift = from.drift,
        _ => return amount(&mut to.demand, &from.demand, path.strip_prefix("demand.")),
    }
    true
}

fn source(source: &mut Option<Source>) -> &mut Source {
    source.get_or_insert_default()
}

fn given(source: Option<&Source>) -> Source {
    source.cloned().unwrap_or_default()
}

fn shard(to: &mut Shard, from: &Shard, path: &str) -> bool {
    let (to, from) = (&mut to.spec, &from.spec);
    match path {
        "region" => to.region.clone_from(&from.region),
        "failure_domain" => to.failure_domain.clone_from(&from.failure_domain),
        "taints" => to.taints.clone_from(&from.taints),
        "airflow_version" => to.airflow_version.clone_from(&from.airflow_version),
        "size" => to.size = from.size,
        "capacity" => to.capacity = from.capacity,
        "url" => to.url.clone_from(&from.url),
        _ => return amount(&mut to.capacity, &from.capacity, path.strip_prefix("capacity.")),
    }
    true
}

/// One dimension of an amount.
fn amount(to: &mut Resources, from: &Resources, dimension: Option<&str>) -> bool {
    let (to, from) = match dimension {
        Some("dags") => (&mut to.dags, from.dags),
        Some("task_starts_per_hour") => (&mut to.task_starts_per_hour, from.task_starts_per_hour),
        Some("running_slots") => (&mut to.running_slots, from.running_slots),
        Some("metadata_bytes") => (&mut to.metadata_bytes, from.metadata_bytes),
        Some("parse_ms_per_minute") => (&mut to.parse_ms_per_minute, from.parse_ms_per_minute),
        _ => return false,
    };
    *to = from;
    true
}

#[cfg(test)]
mod tests {
    use airfleet_domain::manifest::{NamespaceSpec, Placement};
    use prost::Message as _;

    use super::*;

    fn full() -> Entry {
        let labels = Labels::from([("a.b".to_owned(), "new".to_owned())]);
        let metadata =
            Metadata { name: "payments".to_owned(), labels, description: "new".to_owned() };
        let demand = Resources { dags: 7, running_slots: 8, ..Resources::ZERO };
        let placement = Placement { region: "eu".to_owned(), ..Placement::default() };
        let spec = NamespaceSpec {
            owners: vec!["new".to_owned()],
            demand,
            placement,
            ..NamespaceSpec::default()
        };
        Entry::Namespace(Namespace { metadata, spec })
    }

    fn old() -> Entry {
        let labels = Labels::from([("keep".to_owned(), "1".to_owned())]);
        let metadata =
            Metadata { name: "payments".to_owned(), labels, description: "old".to_owned() };
        Entry::Namespace(Namespace { metadata, ..Namespace::default() })
    }

    fn merged(mask: &[&str]) -> Namespace {
        let mask: Vec<String> = mask.iter().map(|&path| path.to_owned()).collect();
        match merge(&old(), &full(), &mask).unwrap() {
            Entry::Namespace(namespace) => namespace,
            Entry::Shard(_) => unreachable!(),
        }
    }

    #[test]
    fn only_what_the_mask_names_changes() {
        let result = merged(&["demand.dags", "labels.a.b", "placement.region", "etag"]);
        assert_eq!(result.spec.demand, Resources { dags: 7, ..Resources::ZERO });
        assert_eq!(result.metadata.labels.len(), 2);
        assert_eq!(result.metadata.description, "old");
        assert_eq!(result.spec.placement.region, "eu");
        assert!(result.spec.owners.is_empty());
        assert!(merged(&["labels.`keep`"]).metadata.labels.is_empty());
        assert_eq!(Entry::Namespace(merged(&[])), full());
        assert_eq!(Entry::Namespace(merged(&["*"])), full());
    }

    #[test]
    fn unknown_fields_are_all_named() {
        let mask = ["owner", "demand.dag", "placement.", "labelss", "url", "spec.owners"];
        let mask: Vec<String> = mask.iter().map(|&path| path.to_owned()).collect();
        let failure = merge(&old(), &full(), &mask).unwrap_err();
        assert_eq!(failure.violations().len(), mask.len(), "{failure:?}");
    }

    /// Checked against the descriptors, so that no field is forgotten here.
    #[test]
    fn every_field_of_the_messages_has_a_path() {
        let set = prost_types::FileDescriptorSet::decode(airfleet_proto::DESCRIPTORS).unwrap();
        let fields = |message: &str| -> Vec<prost_types::FieldDescriptorProto> {
            let mut messages = set.file.iter().flat_map(|file| &file.message_type);
            let found = messages.rfind(|one| one.name() == message);
            found.unwrap().field.clone()
        };
        let mut checked = 0;
        for (message, mut entry) in
            [("Namespace", old()), ("Shard", Entry::Shard(Shard::default()))]
        {
            let from = entry.clone();
            let mut check = |path: String| {
                let known = PASSED_OVER.contains(&path.as_str());
                assert!(known || set_path(&mut entry, &from, &path), "{message}.{path}");
                checked += 1;
            };
            for field in fields(message) {
                check(field.name().to_owned());
                let nested = field.type_name().rsplit('.').next().unwrap_or_default();
                let parts = ["Resources", "PlacementRules", "Guardrails", "DagSource", "Retention"];
                if parts.contains(&nested) {
                    for inner in fields(nested) {
                        check(format!("{}.{}", field.name(), inner.name()));
                    }
                }
            }
        }
        assert!(checked > 60, "{checked}");
    }
}
