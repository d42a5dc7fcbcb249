//! Transfers on the terminal: a bar for each file, a line for what a person should know.

use indicatif::{ProgressBar, ProgressStyle};
use sconce_hub::Progress;

/// Bars of transfers.
#[derive(Default)]
pub struct Bars {
    bar: Option<ProgressBar>,
}

impl Progress for Bars {
    fn begin(&mut self, file: &str, bytes: u64) {
        const STYLE: &str = "{msg} {bar:30} {bytes}/{total_bytes}, {bytes_per_sec}, {eta} left";
        let style = ProgressStyle::with_template(STYLE).expect("the template is right");
        let bar = ProgressBar::new(bytes).with_style(style).with_message(file.to_owned());
        if let Some(old) = self.bar.replace(bar) {
            old.finish_and_clear();
        }
    }

    fn advance(&mut self, bytes: u64) {
        self.bar.iter().for_each(|bar| bar.inc(bytes));
    }

    fn end(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }

    fn notice(&mut self, text: &str) {
        match &self.bar {
            Some(bar) if !bar.is_hidden() => bar.println(format!("hub: {text}")),
            _ => eprintln!("hub: {text}"),
        }
    }
}
