//! Gives the bare-metal link its layout, and embeds the default guest.
//!
//! `GUEST_MEM_TOUR_ELF` names the ELF file of the tour guest. Without it nothing is embedded, and the hypervisor says so
//! when it is started without a bundle.

use std::path::PathBuf;
use std::{env, fs};

fn main() {
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));

    println!("cargo::rerun-if-env-changed=GUEST_MEM_TOUR_ELF");
    let tour = match env::var_os("GUEST_MEM_TOUR_ELF") {
        Some(path) => {
            let path = PathBuf::from(path);
            println!("cargo::rerun-if-changed={}", path.display());
            fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
        }
        None => Vec::new(),
    };
    fs::write(out.join("tour.elf"), tour).expect("OUT_DIR is writable");

    println!("cargo::rerun-if-changed=layout.ld");
    if env::var("CARGO_CFG_TARGET_OS").as_deref() == Ok("none") {
        let script = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets it"))
            .join("layout.ld");
        println!("cargo::rustc-link-arg-bins=-T{}", script.display());
    }
}
