//! Recipes of older versions. A recipe may say which sconce it is for (`needs.sconce = ">=0.1"`); fields that have another name
//! since then get it, in place, so that comments stay. There is one version so far, and nothing has been renamed.

use serde_json::{Map, Value};
use toml_edit::{DocumentMut, Item};

use crate::{Entry, Error, Migration, Program, Report, Verdict, value};

/// The version that recipes become.
pub(crate) const CURRENT: &str = "0.1";

/// A field that has another name since a version.
struct Renamed {
    since: (u32, u32),
    /// Its path, and the new one, in the same table.
    from: &'static str,
    to: &'static str,
}

/// All of them, the oldest first.
static RENAMED: &[Renamed] = &[];

/// Brings a recipe to the current version.
pub(crate) fn migrate(text: &str, recipe: &Map<String, Value>) -> Result<Migration, Error> {
    migrate_by(RENAMED, text, recipe)
}

fn migrate_by(renamed: &[Renamed], text: &str, recipe: &Map<String, Value>) -> Result<Migration, Error> {
    let current = version(CURRENT).unwrap_or_default();
    let said = recipe.get("needs").and_then(|needs| needs.get("sconce"));
    let own = match said {
        None => (0, 0),
        Some(said) => said.as_str().and_then(least).ok_or_else(|| Error::Wrong {
            field: "needs.sconce".into(),
            expected: "a range of versions like \">=0.1\"",
            found: value::shown(said),
        })?,
    };
    if own > current {
        return Err(Error::Newer(said.map(value::shown).unwrap_or_default()));
    }
    let mut document: DocumentMut = text
        .trim_start_matches('\u{feff}')
        .parse()
        .map_err(|e| Error::Syntax { syntax: "TOML", message: format!("{e}") })?;
    let mut entries = Vec::new();
    for rename in renamed.iter().filter(|r| r.since > own) {
        let (table, key) = rename.from.rsplit_once('.').unwrap_or(("", rename.from));
        let new = rename.to.rsplit('.').next().unwrap_or(rename.to);
        let mut at = Some(document.as_item_mut());
        for part in table.split('.').filter(|p| !p.is_empty()) {
            at = at.and_then(|item| item.get_mut(part));
        }
        let Some(table) = at.and_then(Item::as_table_like_mut) else { continue };
        let Some(item) = table.remove(key) else { continue };
        let value = item.to_string().trim().to_owned();
        table.insert(new, item);
        entries.push(Entry { field: rename.from.into(), value, verdict: Verdict::went(rename.to) });
    }
    let warnings = match entries.is_empty() {
        true => vec![format!("nothing has changed its name up to sconce {CURRENT}: the recipe is as it was")],
        false => Vec::new(),
    };
    let report = Report { program: Program::Sconce, entries, warnings, asked: Vec::new() };
    Ok(Migration { recipe: document.to_string(), report })
}

/// The least version in a range: `>=0.1, <0.3`.
fn least(range: &str) -> Option<(u32, u32)> {
    let (upper, lower): (Vec<&str>, Vec<&str>) =
        range.split(',').map(str::trim).partition(|part| part.starts_with('<'));
    let known = |parts: &[&str]| parts.iter().map(|part| version(part)).collect::<Option<Vec<_>>>();
    known(&upper)?;
    Some(known(&lower)?.into_iter().max().unwrap_or_default())
}

/// The first two numbers of a version.
fn version(text: &str) -> Option<(u32, u32)> {
    let mut numbers = text.trim_start_matches(['>', '=', '^', '~', '<', ' ']).split('.');
    Some((numbers.next()?.parse().ok()?, numbers.next().map_or(Some(0), |n| n.parse().ok())?))
}

#[cfg(test)]
mod tests {
    use super::*;

    static ONE: &[Renamed] = &[Renamed { since: (0, 1), from: "train.pictures", to: "train.images" }];

    fn read(text: &str) -> Result<Migration, Error> {
        migrate_by(ONE, text, &value::toml(text)?)
    }

    #[test]
    fn a_field_gets_its_new_name_and_comments_stay() {
        let moved = read("# mine\n[train]\nseed = 1 # luck\npictures = 8\n").expect("an old recipe");
        assert_eq!(moved.recipe, "# mine\n[train]\nseed = 1 # luck\nimages = 8\n");
        assert_eq!(moved.report.entries[0].verdict, Verdict::went("train.images"));
    }

    #[test]
    fn a_current_recipe_stays_and_a_newer_one_is_refused() {
        let with = |range: &str| format!("[needs]\nsconce = \"{range}\"\n[train]\npictures = 8\n");
        assert_eq!(read(&with(">=0.1, <0.3")).map(|m| m.recipe), Ok(with(">=0.1, <0.3")));
        assert_eq!(read(&with("<0.3")).map(|m| m.recipe), Ok(with("<0.3").replace("pictures", "images")));
        assert_eq!(read(&with("^9.0")).map(|m| m.recipe), Err(Error::Newer("^9.0".into())));
        for strange in ["x", "", ">=0.1, y"] {
            assert!(matches!(read(&with(strange)), Err(Error::Wrong { .. })), "{strange}");
        }
    }
}
