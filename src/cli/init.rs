//! `sconce init`: a few questions, and a commented recipe.

use std::io::{BufRead, Write};
use std::path::{Path, PathBuf};

use sconce_core::recipe::{self, Editor, builtins};
use sconce_nn::weights::write_atomic;
use serde_json::Value;

use super::args::{FilesArg, family};
use super::{Failure, print};

/// Ask a few questions, and write a recipe.
///
/// The answer in brackets is taken where the line is empty. The recipe extends one that is inside the program, and has a comment
/// for every line; `sconce check` says what it comes to.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  sconce init
  sconce init portrait.toml
  printf 'models/sdxl\\npictures\\n\\n\\n\\n\\n\\n' | sconce init my.toml")]
pub struct Args {
    /// The recipe to write. Must not be there yet.
    #[arg(value_name = "FILE", default_value = "recipe.toml")]
    out: PathBuf,
}

/// The recipe inside the program that one for a family begins from.
const BEGIN: [(&str, &str); 5] =
    [("sd1", "sd15-lora"), ("sd2", "sd2-v"), ("sdxl", "sdxl-lora"), ("sd3", "sd3-lora"), ("flux", "flux-dev-lora")];

/// What is trained.
enum Learns {
    /// A file beside the model, of this rank.
    Lora(usize),
    /// The model itself.
    All,
}

/// What a run is to be.
struct Answers<'a> {
    base: &'a str,
    model: &'a str,
    pictures: &'a str,
    word: &'a str,
    images: u64,
    learns: Learns,
    prompt: &'a str,
    side: u32,
}

/// Runs the command.
pub fn run(args: Args) -> Result<(), Failure> {
    if args.out.exists() {
        let failure = Failure::usage(format!("`{}` is there already", args.out.display()));
        return Err(failure.help("give another name, or remove it first"));
    }
    let model = ask("The model: a diffusers folder, a single file, or hf://owner/name", "embedded:quickstart")?;
    let folder = FilesArg::default().locate(&model)?;
    let native = family(&folder)?.native(&folder).map_err(Failure::files)?;
    let learns = native.objective.get("type").and_then(Value::as_str).unwrap_or_default().to_owned();
    eprintln!("  it is {}, learns {learns}, and was trained at {} pixels", native.family, native.resolution_px);
    let pictures = loop {
        let answer =
            ask("Your pictures: a folder of images, each with a .txt of its name, or hf://datasets/owner/name", "")?;
        match answer.as_str() {
            "" => eprintln!("  there is no training without pictures"),
            path if path.contains("://") || path.starts_with("embedded:") || Path::new(path).is_dir() => break answer,
            path => eprintln!("  there is no folder `{path}`"),
        }
    };
    let lora = BEGIN.iter().find(|(name, _)| *name == native.family).map_or(BEGIN[2].1, |(_, lora)| *lora);
    let word = ask("A word for what the pictures show, to be learned too (textual inversion); empty for none", "")?;
    let images = loop {
        let answer = ask("How many pictures to see in all", "4000")?;
        match answer.replace('_', "").parse::<u64>() {
            Ok(images) if images > 0 => break images,
            _ => eprintln!("  {answer} is no number of pictures"),
        }
    };
    let learns = loop {
        let answer = ask("The rank of a LoRA (8 for a style, 32 for much), or `all` to train the model itself", "16")?;
        match (answer.as_str(), answer.parse::<usize>()) {
            ("all", _) => break Learns::All,
            (_, Ok(rank)) if (1..=1024).contains(&rank) => break Learns::Lora(rank),
            _ => eprintln!("  a rank is from 1 to 1024"),
        }
    };
    let shown = if word.is_empty() { "a photo".to_owned() } else { format!("a photo of {word}") };
    let prompt = ask("A prompt to draw as the run goes", &shown)?;
    let editor = loop {
        let answer = ask("Write schema.json beside it, by which editors complete and explain a recipe", "yes")?;
        match answer.as_str() {
            "yes" | "y" => break true,
            "no" | "n" => break false,
            _ => eprintln!("  yes or no"),
        }
    };
    let base = if builtins().iter().any(|b| b.name == lora) { lora } else { "sdxl-lora" };
    let mut text = written(&Answers {
        base,
        model: &model,
        pictures: &pictures,
        word: &word,
        images,
        learns,
        prompt: &prompt,
        side: native.resolution_px,
    });
    if few(Path::new(&pictures)) {
        let none = "validation = false                # too few pictures to hold some out\n\n[model]";
        text = text.replacen("\n[model]", none, 1);
    }
    if editor {
        text.insert_str(0, "#:schema ./schema.json\n");
        let schema = recipe::schema(Editor::Toml).map_err(Failure::plugin)?;
        let schema = serde_json::to_string_pretty(&schema).map_err(Failure::run)? + "\n";
        let beside = args.out.with_file_name("schema.json");
        write_atomic(&beside, |out| out.write_all(schema.as_bytes())).map_err(Failure::run)?;
    }
    write_atomic(&args.out, |out| out.write_all(text.as_bytes())).map_err(Failure::run)?;
    let (out, schema) = (args.out.display(), if editor { ", and schema.json beside it" } else { "" });
    print(&format!("wrote {out}{schema}\n  sconce check {out}    what it comes to\n  sconce train {out}    runs it\n"))
}

/// True for a folder of this machine with so few pictures that a share of them would be none.
fn few(folder: &Path) -> bool {
    let Ok(entries) = std::fs::read_dir(folder) else { return false };
    let image = |path: PathBuf| image::ImageFormat::from_path(path).is_ok();
    let (mut pictures, mut folders) = (0, 0);
    for path in entries.flatten().map(|e| e.path()) {
        folders += usize::from(path.is_dir());
        pictures += usize::from(image(path));
    }
    folders == 0 && pictures < 60
}

/// A question on the terminal; the line that answers it, or the default. The end of the input takes every default.
fn ask(question: &str, default: &str) -> Result<String, Failure> {
    let shown = if default.is_empty() { String::new() } else { format!(" [{default}]") };
    eprint!("{question}{shown}: ");
    std::io::stderr().flush().map_err(Failure::run)?;
    let mut line = String::new();
    if std::io::stdin().lock().read_line(&mut line).map_err(Failure::run)? == 0 && default.is_empty() {
        eprintln!();
        return Err(Failure::usage("the input ended before this question was answered"));
    }
    let answer = line.trim();
    Ok(if answer.is_empty() { default.to_owned() } else { answer.to_owned() })
}

fn written(answers: &Answers) -> String {
    let Answers { base, model, pictures, word, images, side, prompt, .. } = answers;
    let caption = if word.is_empty() { "{caption}".to_owned() } else { format!("{word}, {{caption}}") };
    let token = match word.is_empty() {
        true => String::new(),
        false => format!(
            "\n[[train.token]]\ntext = {word:?}                 # in prompts, too\nvectors = 2                       # more for more detail, and \
             sooner too much\nstart = \"picture\"                 # better: a word near to what it is\n"
        ),
    };
    let learns = match answers.learns {
        Learns::Lora(rank) => format!(
            "[adapter]\ntype = \"lora\"\nrank = {rank}\nalpha = {rank}.0                     # equal to the rank: the rate means the \
             same at any\n"
        ),
        Learns::All => {
            "[optimizer]\ntype = \"adamw\"\nlr = 1e-5                         # a whole model moves slowly, or it \
                        forgets\n"
                .to_owned()
        }
    };
    let whole = match answers.learns {
        Learns::Lora(_) => "",
        Learns::All => "adapter = false                   # the model itself trains, and not a file beside it\n",
    };
    let part = (images / 4).max(1);
    format!(
        "# Begun by `sconce init`. `sconce show recipe {base}` has what it extends, line by line.\nextends = {base:?}\n{whole}\n[model]\n\
         path = {model:?}\n\n[[data.source]]\npath = {pictures:?}\nresolution_px = {side}             # the side of a square of equal \
         area; other shapes have buckets\ncaption = {caption:?}       # {{caption}} is the picture's own\n\n[train]\nimages = \
         {images}                     # pictures seen in all: the clock of everything\nseed = 1\nsave_every_images = \
         {part}            # `--resume` goes on from there\n{token}\n{learns}\n[preview]\nprompts = [{prompt:?}]\nevery_images = {part}\n",
    )
}
