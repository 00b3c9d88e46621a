//! `modelet update`: what is said of a version, changed without losing what others said meanwhile.

use serde_json::{Map, Value, json};

use crate::args::{AnnotationArgs, Pair, UpdateArgs};
use crate::client::Client;
use crate::documents::Version;
use crate::failure::Failure;
use crate::out::Out;

pub(super) fn run(args: &UpdateArgs, client: &Client, out: &Out) -> Result<(), Failure> {
    let (model, version) = (&args.version.model, &args.version.version);
    let current = client.version(model, version)?;
    let mut annotations = current.part("/annotations").as_object().cloned().unwrap_or_default();
    let before = annotations.clone();
    apply(&args.annotations, &mut annotations);
    take_away("labels", &args.remove_labels, &mut annotations)?;
    take_away("links", &args.remove_links, &mut annotations)?;
    if annotations == before {
        return Err(Failure::usage(format!("nothing would change in {model}@{version}"))
            .remedy("name what to change: --description, --accuracy, --label, --link, ..."));
    }
    // The ETag makes the server refuse when the annotations are no longer those read above.
    let etag = current.etag.as_deref();
    let answer = client.annotate(model, version, &annotations.into(), etag, args.dry_run.on)?;
    // A dry run wraps the version; a change answers with it.
    let pointer = if answer.part("/version").is_object() { "/version" } else { "" };
    let updated: Version = answer.read(pointer)?;
    out.answer(&answer.document, || {
        let done = if args.dry_run.on { "would become" } else { "updated" };
        format!("{done}:\n{}", super::show::version_text(&updated))
    })
}

/// Sets what the arguments name, and leaves everything else, known to this client or not.
pub(super) fn apply(args: &AnnotationArgs, annotations: &mut Map<String, Value>) {
    if let Some(description) = &args.description {
        annotations.insert("description".to_owned(), description.as_str().into());
    }
    if let (Some(value), Some(method)) = (args.accuracy, &args.accuracy_method) {
        let mut accuracy = json!({ "value": value, "method": method });
        if let (Some(dataset), Some(fields)) = (&args.accuracy_dataset, accuracy.as_object_mut()) {
            fields.insert("dataset".to_owned(), dataset.to_string().into());
        }
        annotations.insert("accuracy".to_owned(), accuracy);
    }
    add("labels", &args.labels, annotations);
    add("links", &args.links, annotations);
}

fn add(field: &str, pairs: &[Pair], annotations: &mut Map<String, Value>) {
    if pairs.is_empty() {
        return;
    }
    let map = annotations.entry(field).or_insert_with(|| json!({}));
    if let Some(map) = map.as_object_mut() {
        map.extend(pairs.iter().map(|pair| (pair.key.clone(), pair.value.as_str().into())));
    }
}

fn take_away(
    field: &str,
    keys: &[String],
    annotations: &mut Map<String, Value>,
) -> Result<(), Failure> {
    for key in keys {
        let map = annotations.get_mut(field).and_then(Value::as_object_mut);
        if map.and_then(|map| map.remove(key)).is_none() {
            return Err(Failure::usage(format!("there is no '{key}' among the {field}")));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_named_stays() {
        let before =
            json!({ "description": "old", "labels": { "a": "1", "b": "2" }, "future": [1] });
        let mut annotations = before.as_object().unwrap().clone();
        let args = AnnotationArgs {
            description: Some("new".to_owned()),
            labels: vec!["b=3".parse().unwrap(), "c=4".parse().unwrap()],
            links: vec!["paper=http://x?a=b".parse().unwrap()],
            accuracy: Some(0.5),
            accuracy_method: Some("top-1".to_owned()),
            accuracy_dataset: None,
        };
        apply(&args, &mut annotations);
        take_away("labels", &["a".to_owned()], &mut annotations).unwrap();
        assert_eq!(
            Value::from(annotations.clone()),
            json!({
                "description": "new", "labels": { "b": "3", "c": "4" }, "future": [1],
                "links": { "paper": "http://x?a=b" },
                "accuracy": { "value": 0.5, "method": "top-1" }
            })
        );
        assert!(take_away("labels", &["a".to_owned()], &mut annotations).is_err());
    }
}
