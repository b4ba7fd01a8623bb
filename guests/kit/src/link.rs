//! For the build scripts of guests: links a guest where S-mode loaders put it.

extern crate std;

use std::env;
use std::println;

/// The linker script of every guest.
const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/layout.ld");

/// Called by a guest's build script. Where the guest has an `entry` of its own, it begins there:
/// before the way in that guests share, every register is still as it was found.
pub fn guest(entry: Option<&str>) {
    if env::var("CARGO_CFG_TARGET_OS").as_deref() != Ok("none") {
        return;
    }
    println!("cargo::rerun-if-changed={SCRIPT}");
    println!("cargo::rustc-link-arg-bins=-T{SCRIPT}");
    if let Some(entry) = entry {
        println!("cargo::rustc-link-arg-bins=--entry={entry}");
    }
}
