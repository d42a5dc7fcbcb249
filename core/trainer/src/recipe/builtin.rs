//! Recipes inside the program. The core holds none: whoever links it registers them.

/// A recipe inside the program, registered with `inventory::submit!`.
pub struct BuiltinRecipe {
    /// Its name: `sconce train NAME`, `extends = "NAME"`.
    pub name: &'static str,
    /// TOML.
    pub text: &'static str,
}

inventory::collect!(BuiltinRecipe);

/// The built-in recipes by name.
pub fn builtins() -> Vec<&'static BuiltinRecipe> {
    let mut all: Vec<_> = inventory::iter::<BuiltinRecipe>.into_iter().collect();
    all.sort_by_key(|r| r.name);
    all
}
