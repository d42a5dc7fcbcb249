//! A command line as people keep it: in a `.sh`, `.bat` or `.ps1`, over several lines, with variables, behind `accelerate
//! launch` with options of its own. It is read as a shell would split it, and nothing in it is run.

use std::collections::HashMap;

use serde_json::Value;

use super::{SCRIPTS, takes_list, takes_nothing};
use crate::Error;
use crate::rule::Field;

/// Arguments of a script.
pub(super) struct Command {
    /// The script, without `.py`.
    pub script: String,
    /// Its arguments, after those of what starts it.
    pub fields: Vec<Field>,
    /// What the report warns of.
    pub warnings: Vec<String>,
}

/// True if a text has a command that trains.
pub(crate) fn is_command(text: &str) -> bool {
    let script = |word: &str| SCRIPTS.iter().any(|(name, ..)| word.contains(&format!("{name}.py")));
    let words = || text.split_whitespace();
    words().any(script) || text.contains("accelerate launch") || words().next().is_some_and(|w| w.starts_with("--"))
}

/// Reads the first command that trains.
pub(super) fn parse(text: &str) -> Result<Command, Error> {
    let commands = split(text);
    let scripts = || commands.iter().filter_map(|words| script(words).map(|at| (words, at)));
    let Some((words, at)) = scripts().next() else {
        let bare = commands.iter().find(|words| words.iter().any(|w| w.starts_with("--pretrained_model")));
        return match (bare, commands.iter().flatten().find(|w| w.ends_with(".py"))) {
            (_, Some(other)) => Err(Error::Unsupported(format!(
                "`{other}` is no script of sd-scripts that sconce has something for: it reads {}",
                SCRIPTS.iter().map(|(name, ..)| *name).collect::<Vec<_>>().join(", ")
            ))),
            (Some(words), None) => {
                Ok(Command { script: String::new(), fields: arguments(words, ""), warnings: Vec::new() })
            }
            (None, None) => Err(Error::Unrecognised("it is a command without a script of sd-scripts".into())),
        };
    };
    let mut warnings = Vec::new();
    if scripts().count() > 1 {
        warnings.push("there is more than one command that trains: this is the first".to_owned());
    }
    let name = words[at].rsplit(['/', '\\']).next().unwrap_or_default().trim_end_matches(".py").to_owned();
    let launcher = words[..at].iter().position(|w| w == "launch").map_or(&[][..], |from| &words[from + 1..at]);
    let mut fields = arguments(launcher, "launch.");
    fields.extend(arguments(&words[at + 1..], ""));
    let open = |f: &&Field| f.value.as_str().is_some_and(|v| v.contains('$') || (v.contains('%') && v.len() > 4));
    if let Some(field) = fields.iter().find(open) {
        warnings.push(format!("`{}` has a variable of the shell that is set elsewhere: {}", field.shown, field.text()));
    }
    Ok(Command { script: name, fields, warnings })
}

/// Where the script is in a command.
fn script(words: &[String]) -> Option<usize> {
    words.iter().position(|word| {
        let file = word.rsplit(['/', '\\']).next().unwrap_or_default();
        SCRIPTS.iter().any(|(name, ..)| file.strip_suffix(".py") == Some(name))
    })
}

/// Arguments as fields; those of a command overrule those of a file.
fn arguments(words: &[String], prefix: &str) -> Vec<Field> {
    let mut fields: Vec<Field> = Vec::new();
    let mut words = words.iter().peekable();
    while let Some(word) = words.next() {
        let Some(argument) = word.strip_prefix("--") else {
            fields.push(Field { rank: 1, ..Field::new(word.clone(), format!("{prefix}{word}"), Value::Null) });
            continue;
        };
        let (name, value) = match argument.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (argument, None),
        };
        let mut values: Vec<Value> = value.map(Value::from).into_iter().collect();
        let list = takes_list(name);
        while values.is_empty() || list {
            match words.peek() {
                Some(next) if !next.starts_with("--") && !takes_nothing(name) => {
                    values.extend(words.next().map(|v| v.clone().into()))
                }
                _ => break,
            }
        }
        let value = match values.len() {
            _ if list => Value::Array(values),
            0 => Value::Bool(true),
            _ => values.remove(0),
        };
        let shown = if prefix.is_empty() { name.to_owned() } else { format!("accelerate launch --{name}") };
        fields.push(Field { rank: 1, ..Field::new(shown, format!("{prefix}{name}"), value) });
    }
    fields
}

/// The commands of a text, each as its words, with the variables put in that the text itself sets.
fn split(text: &str) -> Vec<Vec<String>> {
    let (mut commands, mut words, mut word) = (Vec::new(), Vec::new(), None::<String>);
    let mut variables: HashMap<String, String> = HashMap::new();
    let mut quote = None;
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match (c, quote) {
            (q, Some(open)) if q == open => quote = None,
            ('\\', Some('"')) if chars.peek().is_some_and(|n| "\"\\$".contains(*n)) => {
                word.get_or_insert_default().extend(chars.next())
            }
            ('\'' | '"', None) => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            // Lines go on after `\`, and after `^` and a backtick in Windows' shells.
            ('\\' | '^' | '`', None) if goes_on(&mut chars) => words.extend(word.take()),
            ('$', open) if open != Some('\'') => {
                let name = variable(&mut chars);
                let value = variables.get(&name).cloned().unwrap_or_else(|| format!("${name}"));
                word.get_or_insert_default().push_str(&value);
            }
            ('#', None) if word.is_none() => while chars.next_if(|n| *n != '\n').is_some() {},
            ('\n' | ';' | '&' | '|', None) => {
                words.extend(word.take());
                end(&mut words, &mut commands, &mut variables);
            }
            (space, None) if space.is_whitespace() => words.extend(word.take()),
            _ => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word.take());
    end(&mut words, &mut commands, &mut variables);
    commands
}

type Chars<'a> = std::iter::Peekable<std::str::Chars<'a>>;

/// True, and past the end of the line, if only spaces stand before it.
fn goes_on(chars: &mut Chars) -> bool {
    let mut ahead = chars.clone();
    while ahead.next_if(|c| matches!(c, ' ' | '\t' | '\r')).is_some() {}
    let ends = ahead.next() == Some('\n');
    if ends {
        *chars = ahead;
    }
    ends
}

/// The name of a variable after its `$`: `NAME` or `{NAME}`.
fn variable(chars: &mut Chars) -> String {
    let braced = chars.next_if_eq(&'{').is_some();
    let mut name = String::new();
    while let Some(c) = chars.next_if(|c| c.is_ascii_alphanumeric() || *c == '_') {
        name.push(c);
    }
    if braced {
        chars.next_if_eq(&'}');
    }
    name
}

/// The end of a command: kept, or, where it sets a variable, remembered.
fn end(words: &mut Vec<String>, commands: &mut Vec<Vec<String>>, variables: &mut HashMap<String, String>) {
    let words = std::mem::take(words);
    let name = |text: &str| {
        let text = text.trim_start_matches('$');
        (!text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')).then(|| text.to_owned())
    };
    let set = match words.as_slice() {
        // NAME=value, export NAME=value
        [.., one] if words.len() <= 2 => one.split_once('=').and_then(|(n, v)| Some((name(n)?, v.to_owned()))),
        // $NAME = value
        [n, eq, value] if eq == "=" => name(n).map(|n| (n, value.clone())),
        _ => None,
    };
    match set {
        Some((name, value)) if !name.starts_with('-') => {
            variables.insert(name, value);
        }
        _ if words.is_empty() => {}
        _ => commands.push(words),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<Vec<String>> {
        split(text)
    }

    #[test]
    fn lines_go_on_in_every_shell() {
        for end in ["\\", "^", "`", "\\ \r"] {
            assert_eq!(words(&format!("a {end}\n  --b='c d' {end}\n --e \"f\"")), [["a", "--b=c d", "--e", "f"]]);
        }
    }

    #[test]
    fn variables_of_the_text_are_put_in() {
        let text = "DIR=/a/b # where\n$rate = \"1e-4\"\nrun --x=\"$DIR/c\" --lr=${rate} '$DIR' $other";
        assert_eq!(words(text), [["run", "--x=/a/b/c", "--lr=1e-4", "$DIR", "$other"]]);
    }

    #[test]
    fn a_command_has_its_arguments() {
        let text = "accelerate launch --num_cpu_threads_per_process 2 ./sd-scripts/train_network.py --xformers \
             --optimizer_args \"weight_decay=0.1\" \"betas=0.9,0.99\" --seed=1";
        let command = parse(text).expect("it is one");
        let fields: Vec<_> = command.fields.iter().map(|f| (f.key.as_str(), f.value.to_string())).collect();
        assert_eq!(command.script, "train_network");
        let expected = [
            ("launch.num_cpu_threads_per_process", "\"2\""),
            ("xformers", "true"),
            ("optimizer_args", "[\"weight_decay=0.1\",\"betas=0.9,0.99\"]"),
            ("seed", "\"1\""),
        ];
        assert_eq!(fields, expected.map(|(k, v)| (k, v.to_owned())));
    }
}
