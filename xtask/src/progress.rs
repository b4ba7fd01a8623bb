//! What xtask says while it works.

/// Says on standard error what xtask is about to do.
pub fn say(message: &str) {
    eprintln!("xtask: {message}");
}
