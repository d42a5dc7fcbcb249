//! A chosen plugin: the table `{ type = "name", … }` and the object it makes. A field of this type is how a plugin wraps
//! another one: `of = { type = "scaled-linear" }`.

use std::borrow::Cow;
use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::de::{Deserialize, Deserializer, Error as _};
use serde::ser::{Serialize, Serializer};
use serde_json::{Map, Value};

use crate::abi;
use crate::registry::{self, Built, Kind, ParamError, Plugin};

/// A plugin of the kind `K` (`Choice<dyn Schedule>`), made from its table. Clones share the object.
pub struct Choice<K: ?Sized> {
    name: &'static str,
    params: Value,
    object: Arc<K>,
}

impl<K: Kind + ?Sized> Choice<K> {
    /// Makes the plugin that a table names, or one named by a plain string with its defaults.
    pub fn from_table(table: &Value) -> Result<Self, ParamError> {
        let chosen = Selection::of(K::NAME, table)?;
        if let Some(made) = abi::made_by_host::<K>(&chosen.name, table) {
            let (object, whole) = made?;
            let name = registry::interned(whole.get("type").and_then(Value::as_str).unwrap_or(&chosen.name));
            let params = whole.as_object().into_iter().flatten().filter(|(field, _)| *field != "type");
            let params = Value::Object(params.map(|(field, value)| (field.clone(), value.clone())).collect());
            return Ok(Self { name, params, object });
        }
        let (plugin, built) = chosen.build()?;
        let (object, params) = registry::downcast(built)?;
        Ok(Self { name: plugin.name, params, object })
    }

    /// The plugin `name` with its defaults.
    pub fn named(name: &str) -> Result<Self, ParamError> {
        Self::from_table(&Value::String(name.to_owned()))
    }

    /// The plugin's name.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// The object.
    pub fn object(&self) -> &Arc<K> {
        &self.object
    }

    /// The same choice with another object: what a wrapper puts in place of a schedule at one picture size. Name and
    /// parameters stay those of the choice.
    pub fn with(&self, object: Arc<K>) -> Self {
        Self { object, ..self.clone() }
    }

    /// The whole table with every default filled in: `type` first.
    pub fn table(&self) -> Value {
        whole(self.name, &self.params)
    }
}

/// A table of parameters with the name before them.
pub(crate) fn whole(name: &str, params: &Value) -> Value {
    let mut map = Map::from_iter([("type".to_owned(), name.into())]);
    if let Value::Object(params) = params {
        map.extend(params.iter().map(|(k, v)| (k.clone(), v.clone())));
    }
    Value::Object(map)
}

/// What a table chooses, taken apart.
pub(crate) struct Selection<'a> {
    kind: &'a str,
    name: String,
    params: Map<String, Value>,
}

impl<'a> Selection<'a> {
    /// The name and the parameters in a table, or in a plain string.
    pub fn of(kind: &'a str, table: &Value) -> Result<Self, ParamError> {
        let (name, params) = match table {
            Value::String(name) => (name.clone(), Map::new()),
            Value::Object(map) => {
                let mut map = map.clone();
                match map.remove("type") {
                    Some(Value::String(name)) => (name, map),
                    Some(_) => return Err(ParamError::new("must be a string").within("type")),
                    None => {
                        return Err(ParamError::new(format!("the {kind} has no `type`"))
                            .help(format!("`sconce list {kind}` shows what there is")));
                    }
                }
            }
            _ => return Err(ParamError::new(format!("a {kind} is a table with a `type`"))),
        };
        Ok(Self { kind, name, params })
    }

    /// Makes it, of what this program or library has.
    pub fn build(self) -> Result<(&'static Plugin, Built), ParamError> {
        let plugin = registry::find(self.kind, &self.name)?;
        Ok((plugin, (plugin.build)(Value::Object(self.params))?))
    }
}

impl Choice<dyn crate::Schedule> {
    /// The schedule for latents of this many rows and columns: itself, where the size does not matter.
    pub fn sized(&self, height: usize, width: usize) -> Self {
        self.at_size(height, width).map_or_else(|| self.clone(), |object| self.with(object))
    }
}

impl<K: ?Sized> Deref for Choice<K> {
    type Target = K;
    fn deref(&self) -> &K {
        &self.object
    }
}

impl<K: ?Sized> Clone for Choice<K> {
    fn clone(&self) -> Self {
        Self { name: self.name, params: self.params.clone(), object: self.object.clone() }
    }
}

impl<K: ?Sized> fmt::Debug for Choice<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.name, self.params)
    }
}

impl<K: Kind + ?Sized> Serialize for Choice<K> {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        self.table().serialize(s)
    }
}

impl<'de, K: Kind + ?Sized> Deserialize<'de> for Choice<K> {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        Self::from_table(&Value::deserialize(d)?).map_err(|e| D::Error::custom(fold(&e)))
    }
}

impl<K: Kind + ?Sized> JsonSchema for Choice<K> {
    fn schema_name() -> Cow<'static, str> {
        format!("{}-plugin", K::NAME).into()
    }

    /// A reference to the kind's own definition, which the whole recipe's schema holds once.
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        schemars::json_schema!({ "$ref": format!("#/$defs/{}", K::NAME) })
    }

    fn inline_schema() -> bool {
        true
    }
}

/// serde's errors are strings: a nested plugin's error travels through them behind this mark, so that its path and its
/// advice are not lost.
const MARK: char = '\u{1}';

fn fold(e: &ParamError) -> String {
    format!("{MARK}{}{MARK}{}{MARK}{}{MARK}", e.path.join("."), e.message, e.help.as_deref().unwrap_or(""))
}

/// An error on its way through serde: what a plugin's `try_from` returns, so that its path and its advice are not lost
/// there.
pub struct Folded(pub ParamError);

impl fmt::Display for Folded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&fold(&self.0))
    }
}

impl From<ParamError> for Folded {
    fn from(error: ParamError) -> Self {
        Self(error)
    }
}

/// Turns serde's message at `path` back into an error, a nested plugin's included.
pub(crate) fn unfold(mut path: Vec<String>, message: &str) -> ParamError {
    let parts: Vec<&str> = message.split(MARK).collect();
    if let [_, inner, message, help, _] = parts[..] {
        path.extend(inner.split('.').filter(|s| !s.is_empty()).map(str::to_owned));
        let help = (!help.is_empty()).then(|| help.to_owned());
        return ParamError { path, message: message.to_owned(), help };
    }
    ParamError { path, message: message.to_owned(), help: crate::names::field_help(message) }
}
