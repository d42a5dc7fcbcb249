//! The dataset's TOML: what holds for all, for a dataset, and for a subset, which is a folder of pictures. Each field knows the
//! folders that it is about, and the narrower one counts.

use std::ops::Range;

use serde_json::{Map, Value};

use crate::Error;
use crate::rule::Field;

/// Folders of pictures; more are no honest dataset.
const MOST: usize = 1000;

/// The fields, in the file's order.
pub(super) fn fields(config: Map<String, Value>, prefix: &str) -> Result<Vec<Field>, Error> {
    let datasets = || config.get("datasets").and_then(Value::as_array).into_iter().flatten();
    let subsets = |dataset: &Value| dataset.get("subsets").and_then(Value::as_array).map_or(0, Vec::len);
    // Settings without a folder are those of one that is still to be said.
    let all = datasets().map(subsets).sum::<usize>().max(1);
    if all > MOST {
        return Err(Error::TooMany { what: "folders of pictures", limit: MOST });
    }
    let mut fields = Vec::new();
    let mut put = |path: String, key: &str, value: &Value, sources: Range<usize>, rank| {
        fields.push(Field {
            sources: Some(sources),
            rank,
            ..Field::new(format!("{prefix}{path}"), key, value.clone())
        });
    };
    let mut first = 0;
    for (name, value) in &config {
        match (name.as_str(), value) {
            ("general", Value::Object(general)) => {
                general.iter().for_each(|(key, v)| put(format!("general.{key}"), key, v, 0..all, 2));
            }
            ("datasets", Value::Array(datasets)) => {
                for (i, dataset) in datasets.iter().enumerate() {
                    let end = first + subsets(dataset);
                    for (key, v) in dataset.as_object().into_iter().flatten() {
                        match (key.as_str(), v) {
                            ("subsets", Value::Array(subsets)) => {
                                for (j, subset) in subsets.iter().enumerate() {
                                    for (key, v) in subset.as_object().into_iter().flatten() {
                                        let at = first + j;
                                        put(format!("datasets[{i}].subsets[{j}].{key}"), key, v, at..at + 1, 4);
                                    }
                                }
                            }
                            _ => put(format!("datasets[{i}].{key}"), key, v, first..end, 3),
                        }
                    }
                    first = end;
                }
            }
            _ => put(name.clone(), name, value, 0..all, 2),
        }
    }
    Ok(fields)
}
