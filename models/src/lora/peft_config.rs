//! What PEFT's files leave to a configuration: alpha, and how it is divided. It is in `adapter_config.json` beside a file that PEFT
//! wrote, and in the header of one that diffusers did. A reader that passes over it draws with another strength than was trained.

use std::path::Path;

use candle_core::{Error, Result, bail};
use fancy_regex::Regex;
use sconce_core::adapter::Saved;
use sconce_nn::weights::{WeightFiles, read_metadata};
use serde_json::{Map, Value};

use super::ALPHA;

/// diffusers' word in the header: one object, its fields begin with the component.
const IN_HEADER: &str = "lora_adapter_metadata";
/// Starts that PEFT takes out of the model's own weights.
const MOVED: [&str; 4] = ["pissa", "olora", "corda", "lora_ga"];
const BESIDE: &str = "adapter_config.json";

/// The configurations by component.
pub(super) struct Config {
    fields: Map<String, Value>,
    /// Fields begin with the component.
    by_component: bool,
    from: String,
}

impl Config {
    /// Of a file, where there is one. `wrapped`: the file is one that PEFT itself wrote.
    pub fn of(file: &WeightFiles, wrapped: bool) -> Result<Option<Self>> {
        let Some(path) = file.paths().first().map(|path| path.to_path_buf()) else { return Ok(None) };
        let object = |text: &str, from: String, by_component| match serde_json::from_str(text) {
            Ok(Value::Object(fields)) => Ok(Some(Self { fields, by_component, from })),
            _ => bail!("{from} is no JSON object, and says what the adapter's strength is: mend it or take it out"),
        };
        if let Some(text) = read_metadata(&path)?.get(IN_HEADER) {
            return object(text, format!("{}: its header's `{IN_HEADER}`", path.display()), true);
        }
        let beside = path.parent().unwrap_or(Path::new("")).join(BESIDE);
        match std::fs::read_to_string(&beside) {
            Ok(text) if wrapped => object(&text, beside.display().to_string(), false),
            Err(e) if wrapped && e.kind() != std::io::ErrorKind::NotFound => {
                Err(Error::Msg(format!("{}: {e}", beside.display())))
            }
            _ => Ok(None),
        }
    }

    /// A layer with the alpha that the configuration gives it.
    pub fn applied(&self, mut saved: Saved) -> Result<Saved> {
        let field = |name: &str| match self.by_component {
            true => self.fields.get(&format!("{}.{name}", saved.component)),
            false => self.fields.get(name),
        };
        if let Some(start) = field("init_lora_weights").and_then(Value::as_str)
            && MOVED.iter().any(|name| start.starts_with(name))
        {
            bail!(
                "{}: it begins with `{start}`, on a model that is the published one less this start, so that it adds to no model \
                 here. PEFT saves what it changed with `path_initial_model_for_weight_conversion`",
                self.from
            );
        }
        if saved.tensors.contains_key(super::SKEW) {
            let exact = field("use_cayley_neumann").is_some_and(|on| on == false);
            let terms = field("num_cayley_neumann_terms").and_then(Value::as_f64).unwrap_or(5.0);
            saved.constants.insert(super::NEUMANN_TERMS.into(), if exact { 0.0 } else { terms });
            if field("coft").is_some_and(|on| on == true) {
                let eps = field("eps").and_then(Value::as_f64).unwrap_or(6e-5);
                saved.constants.insert(super::BOUND.into(), eps);
            }
            return Ok(saved);
        }
        let Some(mut alpha) = field("lora_alpha").or_else(|| field("alpha")).and_then(Value::as_f64) else {
            return Ok(saved);
        };
        let pattern = |name: &str| self.pattern(field(name), &saved.path);
        if let Some(own) = pattern("alpha_pattern")? {
            alpha = own;
        }
        let Some(rank) = pattern("rank_pattern")?.or_else(|| field("r").and_then(Value::as_f64)) else {
            bail!("{}: it has an alpha and no `r`", self.from)
        };
        if field("use_rslora").is_some_and(|on| on == true) {
            alpha *= rank.sqrt();
        }
        // Two full matrices of a Kronecker product have no rank of their own: the scale goes into one of them.
        if let Some(full) = saved.tensors.get("lokr_w2").filter(|_| saved.tensors.contains_key("lokr_w1")) {
            let scaled = (full * (alpha / rank))?;
            saved.tensors.insert("lokr_w2".into(), scaled);
        } else if !saved.tensors.contains_key(super::FACTORS) {
            saved.constants.insert(ALPHA.into(), alpha);
        }
        Ok(saved)
    }

    /// What a table of patterns gives a layer: the first that matches the path's end, from a dot or as a whole.
    fn pattern(&self, table: Option<&Value>, path: &str) -> Result<Option<f64>> {
        let Some(Value::Object(table)) = table else { return Ok(None) };
        for (name, value) in table {
            let fits = Regex::new(&format!("^(?:.*\\.)?(?:{name})$")).map_err(|e| {
                Error::Msg(format!("{}: the pattern `{name}` is no expression that is understood here: {e}", self.from))
            })?;
            if fits.is_match(path).map_err(|e| Error::Msg(format!("{}: the pattern `{name}`: {e}", self.from)))? {
                return Ok(value.as_f64());
            }
        }
        Ok(None)
    }
}
