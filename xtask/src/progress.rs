//! What xtask says while it works: one line for each step, and a spinner below it where a person watches.

use std::io::IsTerminal;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use crate::{screen, workspace};

/// Says on standard error what xtask is about to do.
pub fn say(message: &str) {
    eprintln!("xtask: {message}");
}

/// Says `message`, runs a quiet, long step, and shows on a terminal that it is going on.
pub fn step<T>(message: &str, work: impl FnOnce() -> anyhow::Result<T>) -> anyhow::Result<T> {
    say(message);
    if workspace::is_ci() || screen::is_kept_back() || !std::io::stderr().is_terminal() {
        return work();
    }
    let style =
        ProgressStyle::with_template("{spinner} {elapsed}").expect("the template is well formed");
    let spinner = ProgressBar::new_spinner().with_style(style);
    spinner.enable_steady_tick(Duration::from_millis(120));
    let result = work();
    spinner.finish_and_clear();
    result
}
