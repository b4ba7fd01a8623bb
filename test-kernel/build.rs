//! Gives the bare-metal link its layout.

use std::env;
use std::path::PathBuf;

fn main() {
    println!("cargo::rerun-if-changed=layout.ld");
    if env::var("CARGO_CFG_TARGET_OS").as_deref() == Ok("none") {
        let script = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets it"))
            .join("layout.ld");
        println!("cargo::rustc-link-arg-bins=-T{}", script.display());
    }
}
