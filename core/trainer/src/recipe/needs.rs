//! `[needs]`: what a recipe that is given away asks of who runs it. It is held against the program before anything else is read,
//! since a plugin that is not there makes every other fault a riddle.

use schemars::JsonSchema;
use sconce_sdk::{Origin, ParamError, registry};
use semver::{Version, VersionReq};
use serde::{Deserialize, Serialize};

/// What a recipe needs.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NeedsTable {
    /// The versions of sconce that it is for: `>=0.1, <0.3`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sconce: Option<String>,
    /// Plugins that do not come with sconce.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub plugin: Vec<NeededPlugin>,
    /// What the pictures are to be, in words: `20 to 60 photographs of one person, captioned`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<String>,
    /// The least number of pictures that it makes sense with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pictures: Option<usize>,
    /// The device's memory, in gigabytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_gb: Option<f64>,
    /// How long a run takes, in hours, on the device that it was made on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hours: Option<f64>,
    /// That device.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
}

/// A plugin that a recipe needs.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NeededPlugin {
    /// The crate that has it.
    pub name: String,
    /// The versions of it that do: `^1.2`. Default: any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Of one that is loaded as a library, the file's hash: no other file is taken for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
}

impl NeedsTable {
    /// What of it this program has not: the field, and what is missing with the command that gets it.
    pub(super) fn unmet(&self) -> Vec<(String, ParamError)> {
        let mut unmet = Vec::new();
        if let Some(wanted) = &self.sconce {
            unmet.extend(fits(wanted, env!("CARGO_PKG_VERSION"), "sconce").map(|e| ("needs.sconce".to_owned(), e)));
        }
        for (i, plugin) in self.plugin.iter().enumerate() {
            unmet.extend(plugin.unmet().map(|e| (format!("needs.plugin.{i}"), e)));
        }
        unmet
    }
}

impl NeededPlugin {
    fn unmet(&self) -> Option<ParamError> {
        let there = registry::all().ok()?.into_iter().find(|plugin| plugin.krate == self.name);
        let Some(there) = there else {
            let version = self.version.as_ref().map_or(String::new(), |version| format!(" {version}"));
            let with = self.version.as_ref().map_or(String::new(), |version| format!("={}", bare(version)));
            let error = ParamError::new(format!("the plugin crate `{}`{version} is not in this program", self.name));
            return Some(error.help(format!("make a program that has it: sconce build --with {}{with}", self.name)));
        };
        if let (Some(wanted), Origin::Library { path, sha256 }) = (&self.sha256, there.origin)
            && !wanted.eq_ignore_ascii_case(sha256)
        {
            let error = ParamError::new(format!(
                "the library of `{}` is {}, with the sha256 {sha256}, and the recipe is for {wanted}",
                self.name,
                path.display()
            ));
            return Some(error.help("get the file that the recipe's maker used, and `sconce plugin add` it"));
        }
        self.version.as_ref().and_then(|wanted| fits(wanted, there.version, &self.name))
    }
}

/// A version requirement as Cargo takes it after a name.
fn bare(version: &str) -> &str {
    version.trim_start_matches(['^', '=', '~', '>', '<', ' '])
}

fn fits(wanted: &str, there: &str, what: &str) -> Option<ParamError> {
    let range = match VersionReq::parse(wanted) {
        Ok(range) => range,
        Err(e) => {
            return Some(ParamError::new(format!("`{wanted}` is no range of versions: {e}")).help("write >=0.1, <0.3"));
        }
    };
    let version = Version::parse(there).ok()?;
    // A pre-release of a version that fits does, too.
    let plain = Version::new(version.major, version.minor, version.patch);
    (!range.matches(&version) && !range.matches(&plain)).then(|| {
        let error = ParamError::new(format!("the recipe is for {what} {wanted}, and this is {there}"));
        error.help(format!("take a version of {what} that fits, or ask who made the recipe for a newer one"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_told_with_the_command_that_gets_it() {
        let own = env!("CARGO_PKG_VERSION");
        let needs = |sconce: &str, name: &str| NeedsTable {
            sconce: Some(sconce.to_owned()),
            plugin: vec![NeededPlugin { name: name.to_owned(), version: Some("^1.2".to_owned()), sha256: None }],
            ..NeedsTable::default()
        };
        let said = |needs: NeedsTable| needs.unmet().iter().map(|(f, e)| format!("{f}: {e}")).collect::<Vec<_>>();
        let all = said(needs(">=7.0", "sconce-shiny"));
        assert!(all[0].contains(&format!("for sconce >=7.0, and this is {own}")), "{all:?}");
        assert!(all[1].contains("sconce build --with sconce-shiny=1.2"), "{all:?}");
        assert!(said(needs("what", "x"))[0].contains("no range of versions"));
        assert_eq!(said(NeedsTable { plugin: vec![], ..needs(&format!("={own}"), "x") }), [""; 0]);
    }
}
