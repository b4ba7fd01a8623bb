//! The device trees of real boards, as Debian's kernel package has them, through the real parser.
//!
//! The one idea: a board is accepted, or refused for a reason that a plain search of its tree
//! confirms. The trees are not part of this repository: `cargo xtask test` fetches them, and names
//! their folder in an environment variable. Where they are not, the test says so.

use super::*;
use dtoolkit::Property;
use dtoolkit::model::{DeviceTree, DeviceTreeNode, DeviceTreeProperty};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::vec::Vec;
use std::{env, format, fs};

/// Where `cargo xtask test` puts them, seen from this package.
const USUAL_FOLDER: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../target/tools/board-device-trees"
);

fn folder() -> Option<PathBuf> {
    let named = env::var_os("GUEST_MEM_BOARD_DEVICE_TREES").map(PathBuf::from);
    named.or_else(|| {
        let usual = PathBuf::from(USUAL_FOLDER);
        usual.is_dir().then_some(usual)
    })
}

fn device_trees(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            device_trees(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "dtb") {
            found.push(path);
        }
    }
}

/// What the harts say in a property, as text, for each hart that is not disabled.
fn of_harts(tree: &DeviceTree, name: &str) -> Vec<std::string::String> {
    let cpus = tree.find_node("/cpus").expect("every board has harts");
    let harts = cpus.children().filter(|cpu| {
        let status = cpu.property("status").map(|status| status.value().to_vec());
        cpu.name().starts_with("cpu@") && status.is_none_or(|status| status.starts_with(b"ok"))
    });
    harts
        .map(|cpu| {
            let value = cpu.property(name).map(|property| property.value().to_vec());
            std::string::String::from_utf8(value.unwrap_or_default()).unwrap()
        })
        .collect()
}

/// What a plain search of the tree says of the board.
fn expected(tree: &DeviceTree) -> Result<(), MachineError> {
    let has_h =
        |name: &str, is_in: fn(&str) -> bool| of_harts(tree, name).iter().any(|value| is_in(value));
    let in_list = |list: &str| list.split('\0').any(|name| name == "h");
    let in_string = |isa: &str| isa.split('_').next().unwrap_or("").contains('h');
    let has_memory = tree.root.children().any(|node| {
        let kind = node.property("device_type");
        kind.is_some_and(|kind| kind.value() == b"memory\0")
    });
    if of_harts(tree, "mmu-type")
        .iter()
        .all(|mmu| mmu == "riscv,none\0")
    {
        Err(MachineError::NoHart(Unfit::NoMmu))
    } else if !has_h("riscv,isa-extensions", in_list) && !has_h("riscv,isa", in_string) {
        Err(MachineError::NoHart(Unfit::NoHypervisor))
    } else if !has_memory {
        Err(MachineError::Missing("memory"))
    } else {
        Ok(())
    }
}

/// The tree with 4 GiB of memory, which the firmware of such a board adds.
fn with_memory(mut tree: DeviceTree) -> Vec<u8> {
    let property = |name: &str, value: &[u8]| DeviceTreeProperty::new(name, value).unwrap();
    let mut memory = DeviceTreeNode::new("memory@80000000").unwrap();
    memory.add_property(property("device_type", b"memory\0"));
    let reg = [0, 0x8000_0000_u32, 1, 0].map(u32::to_be_bytes).concat();
    memory.add_property(property("reg", &reg));
    tree.root.add_child(memory);
    tree.to_dtb()
}

#[test]
fn r80_every_board_is_accepted_or_refused_for_a_true_reason() {
    // Not by `println`, of which nobody sees anything when the test passes.
    let mut out = std::io::stdout();
    let Some(folder) = folder() else {
        let _ = writeln!(
            out,
            "skipped: the boards' device trees are fetched by `cargo xtask test`"
        );
        return;
    };
    let mut files = Vec::new();
    device_trees(&folder, &mut files);
    files.sort();
    assert!(
        files.len() >= 40,
        "{} files below {}",
        files.len(),
        folder.display()
    );
    let (mut accepted, mut completed) = (0, 0);
    for file in &files {
        let blob = fs::read(file).unwrap();
        let name = format!("{}", file.display());
        let tree = DeviceTree::from_fdt(&blob::parse(&blob).expect(&name));
        let read = Machine::from_device_tree(&blob, None);
        assert_eq!(
            read.as_ref().map(|_| ()).map_err(|&error| error),
            expected(&tree),
            "{name}"
        );
        match read {
            Ok(machine) => {
                accepted += 1;
                assert!(
                    machine.isa.lists("h") && !machine.harts.as_slice().is_empty(),
                    "{name}"
                );
            }
            Err(MachineError::Missing("memory")) => {
                completed += 1;
                let completed = with_memory(tree);
                let machine = Machine::from_device_tree(&completed, None).expect(&name);
                assert!(machine.isa.lists("h"), "{name}");
            }
            Err(_) => {}
        }
    }
    let _ = writeln!(out, "counted: {} device trees of boards", files.len());
    let _ = writeln!(
        out,
        "counted: {} of them accepted, or with the memory that firmware adds",
        accepted + completed
    );
    assert!(
        accepted + completed > 0,
        "some board has the hypervisor extension"
    );
}
