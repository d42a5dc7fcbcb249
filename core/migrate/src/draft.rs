//! A recipe as it comes to be: fields by path, each with the reason that it stands there, written in the order in which the
//! recipes of `configs/` are. What is still to be said stands in its place, as a comment.

use serde_json::Value;
use toml_edit::Key;

use crate::literal::{grouped, toml};
use crate::report::wrapped;

/// The tables of a recipe, in the order in which they are written. A number in a path is a place in a list.
const TABLES: &[&str] = &[
    "model",
    "schedule",
    "objective",
    "weighting",
    "timesteps",
    "distance",
    "noise",
    "ema",
    "adapter",
    "adapter.of",
    "optimizer",
    "lr",
    "data",
    "data.source",
    "train",
    "train.mask",
    "train.token",
    "validation",
    "preview",
    "sampling",
    "output",
];

/// Keys that are written before others, in this order.
const KEYS: &[&str] = &[
    "type",
    "path",
    "files",
    "family",
    "dtype",
    "convert",
    "quantise",
    "rank",
    "alpha",
    "scaling",
    "lr",
    "beta1",
    "beta2",
    "eps",
    "weight_decay",
    "batch",
    "repeats",
    "images",
    "text",
    "prompts",
    "share",
    "solver",
    "spacing",
    "steps",
    "cfg",
];

/// Keys whose values are whole numbers, which other programs also write as 4.0.
const WHOLE: &[&str] = &[
    "batch",
    "accumulate",
    "seed",
    "steps",
    "width_px",
    "height_px",
    "swap_blocks",
    "max_sequence_length",
    "vectors",
    "every_images",
    "save_every_images",
    "keep",
];

/// Where comments begin, and where lines end.
const COLUMN: usize = 36;
const WIDTH: usize = 120;

/// A field of the recipe.
#[derive(Clone, Debug)]
struct Line {
    /// Its dotted path.
    path: String,
    /// Its value; none where it is to be said.
    value: Option<Value>,
    comment: String,
}

/// A recipe as it comes to be.
#[derive(Clone, Debug, Default)]
pub(crate) struct Draft {
    lines: Vec<Line>,
}

impl Draft {
    /// Sets a field, in place of what it was.
    pub fn set(&mut self, path: &str, value: Value, comment: impl Into<String>) {
        let key = path.rsplit('.').next().unwrap_or(path);
        let whole = value.as_f64().filter(|x| WHOLE.contains(&key) && x.fract() == 0.0 && x.abs() < 1e15);
        let value = whole.map_or(value, |x| Value::from(x as i64));
        self.put(Line { path: path.to_owned(), value: Some(value), comment: comment.into() });
    }

    /// Asks for a field that nothing has set.
    pub fn ask(&mut self, path: &str, why: &str) {
        if !self.has(path) {
            self.put(Line { path: path.to_owned(), value: None, comment: format!("to be said: {why}") });
        }
    }

    /// A field's value.
    pub fn get(&self, path: &str) -> Option<&Value> {
        self.lines.iter().find(|l| l.path == path)?.value.as_ref()
    }

    /// Why a field stands there.
    pub fn comment(&self, path: &str) -> Option<&str> {
        self.lines.iter().find(|l| l.path == path).map(|l| l.comment.as_str())
    }

    /// True if a field is set.
    pub fn has(&self, path: &str) -> bool {
        self.get(path).is_some()
    }

    /// What is still to be said: fields, and what to write.
    pub fn asked(&self) -> Vec<(String, String)> {
        let open = self.lines.iter().filter(|l| l.value.is_none());
        let why = |l: &Line| l.comment.trim_start_matches("to be said: ").to_owned();
        open.map(|l| (l.path.clone(), why(l))).collect()
    }

    /// Takes everything away but one table and its own.
    pub fn only(&mut self, table: &str) {
        self.lines.retain(|l| l.path.strip_prefix(table).is_some_and(|rest| rest.starts_with('.')));
    }

    /// Takes a table's fields away.
    pub fn clear(&mut self, table: &str) {
        self.lines.retain(|l| l.path.strip_prefix(table).is_none_or(|rest| !rest.starts_with('.')));
    }

    fn put(&mut self, line: Line) {
        match self.lines.iter_mut().find(|l| l.path == line.path) {
            Some(old) => *old = line,
            None => self.lines.push(line),
        }
    }

    /// The recipe, below a heading.
    pub fn text(&self, heading: &str) -> String {
        let mut lines: Vec<(&Line, Place)> = self.lines.iter().map(|l| (l, Place::of(&l.path))).collect();
        lines.sort_by_key(|(_, place)| (place.table_rank(), place.index, place.key_rank()));
        let mut text = wrapped(heading, WIDTH - 2).iter().map(|line| format!("# {line}\n")).collect::<String>();
        for table in lines.chunk_by(|(_, a), (_, b)| (&a.table, a.index) == (&b.table, b.index)) {
            let place = &table[0].1;
            let head = match place.index {
                None => format!("[{}]", place.table),
                Some(_) => format!("[[{}]]", place.table),
            };
            // A table of which nothing is said yet would be one without its fields.
            let open = table.iter().all(|(line, _)| line.value.is_none());
            text +=
                &format!("{}{}{head}\n", if place.index.is_none() { "\n" } else { "" }, if open { "# " } else { "" });
            table.iter().for_each(|(line, place)| text += &written(&place.key, line));
        }
        text
    }
}

/// Where a field stands.
struct Place {
    table: String,
    index: Option<usize>,
    key: String,
}

impl Place {
    fn of(path: &str) -> Self {
        let (table, key) = path.rsplit_once('.').unwrap_or(("", path));
        let (table, index) = match table.rsplit_once('.') {
            Some((list, number)) => match number.parse() {
                Ok(index) => (list, Some(index)),
                Err(_) => (table, None),
            },
            None => (table, None),
        };
        Self { table: table.to_owned(), index, key: key.to_owned() }
    }

    fn table_rank(&self) -> usize {
        TABLES.iter().position(|t| *t == self.table).unwrap_or(TABLES.len())
    }

    fn key_rank(&self) -> usize {
        KEYS.iter().position(|k| *k == self.key).unwrap_or(KEYS.len())
    }
}

/// A line with its comment, which goes on in lines below where it is long.
fn written(key: &str, line: &Line) -> String {
    let said = match &line.value {
        Some(Value::Number(n)) if key.contains("images") => {
            format!("{key} = {}", n.as_i64().map_or_else(|| toml(&n.clone().into()), grouped))
        }
        Some(value) => {
            let short = format!("{} = {}", Key::new(key), toml(value));
            match value {
                Value::Array(items) if short.chars().count() > WIDTH => {
                    let items: String = items.iter().map(|item| format!("    {},\n", toml(item))).collect();
                    format!("{} = [\n{items}]", Key::new(key))
                }
                _ => short,
            }
        }
        None => format!("# {key} ="),
    };
    let mut comments = wrapped(&line.comment, WIDTH - COLUMN - 2).into_iter();
    let mut text = match said.chars().count() {
        _ if comments.len() == 0 => said + "\n",
        count if count < COLUMN => format!("{said:<COLUMN$}# {}\n", comments.next().unwrap_or_default()),
        _ => said + "\n",
    };
    comments.for_each(|more| text += &format!("{:COLUMN$}# {more}\n", ""));
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn tables_have_their_order_and_questions_their_place() {
        let mut draft = Draft::default();
        draft.set("train.seed", json!(1.0), "");
        draft.set("data.source.1.path", json!("b"), "");
        draft.set("data.source.0.path", json!("a"), "why");
        draft.ask("train.images", "how many");
        let text = draft.text("A recipe.");
        assert!(text.starts_with("# A recipe.\n[[data.source]]\npath = \"a\""), "{text}");
        assert!(text.contains("\n[train]\n# images ="), "{text}");
        assert!(text.ends_with("seed = 1\n"), "{text}");
        draft.clear("train");
        draft.ask("train.images", "how many");
        assert!(draft.text("").contains("\n# [train]\n# images ="), "a table with no field is a comment");
        draft.set("train.images", json!(8000), "");
        assert!(draft.text("").contains("images = 8_000\n"));
    }
}
