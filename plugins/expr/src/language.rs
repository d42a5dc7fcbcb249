//! What `sconce show` says of the language, made of the tables that the grammar reads, so that it cannot be out of date.

use schemars::Schema;

use crate::engine::{CONSTANTS, FUNCTIONS};

/// Puts the language behind a plugin's own description.
pub(crate) fn teach(schema: &mut Schema) {
    let own = schema.get("description").and_then(|d| d.as_str()).unwrap_or_default().to_owned();
    schema.insert("description".into(), format!("{own}\n\n{}", text()).into());
}

fn text() -> String {
    let functions: Vec<String> = FUNCTIONS.iter().map(|f| format!("  {:<22} {}", f.call, f.about)).collect();
    let constants: Vec<&str> = CONSTANTS.iter().map(|(name, _)| *name).collect();
    format!(
        "A formula is written with numbers (0.5, 1e-4, 10_000), {}, the variables, numbers of the recipe's own (`params = \
         {{ gamma = 5.0 }}`, changed by `--set TABLE.params.gamma=1`), brackets, + - * / and ^ (-x^2 is -(x^2), 2^3^2 is \
         2^(3^2)), and comparisons < <= > >= == !=, which are 1 where they hold and 0 elsewhere, so that a product of them is \
         \"and\". Derivatives are exact; at a kink they are those of the branch from which the value is taken. Functions:\n{}",
        constants.join(", "),
        functions.join("\n")
    )
}
