//! How many harts a machine says it has.

use dtoolkit::fdt::{Fdt, FdtNode};
use dtoolkit::standard::{NodeStandard, Status};
use dtoolkit::{Node, Property};

/// The harts that the device tree lists, but those that are off.
pub fn listed(tree: Fdt<'_>) -> usize {
    let is_hart = |node: &FdtNode<'_>| {
        let property = node.property("device_type");
        let is_cpu = property.is_some_and(|kind| kind.value_as::<&str>() == Ok("cpu"));
        is_cpu && node.status() == Ok(Status::Okay)
    };
    let cpus = tree.find_node("/cpus");
    cpus.map_or(0, |cpus| cpus.children().filter(is_hart).count())
}

#[cfg(test)]
mod tests {
    use vm_fdt::FdtWriter;

    use super::*;

    #[test]
    fn harts_that_are_on_are_counted_and_what_else_stands_with_them_is_not() {
        let mut fdt = FdtWriter::new().unwrap();
        let root = fdt.begin_node("").unwrap();
        let cpus = fdt.begin_node("cpus").unwrap();
        for (id, status) in [(0, None), (1, Some("okay")), (2, Some("disabled"))] {
            let cpu = fdt.begin_node(&format!("cpu@{id}")).unwrap();
            fdt.property_string("device_type", "cpu").unwrap();
            if let Some(status) = status {
                fdt.property_string("status", status).unwrap();
            }
            fdt.end_node(cpu).unwrap();
        }
        let map = fdt.begin_node("cpu-map").unwrap();
        fdt.end_node(map).unwrap();
        fdt.end_node(cpus).unwrap();
        fdt.end_node(root).unwrap();
        assert_eq!(listed(Fdt::new(&fdt.finish().unwrap()).unwrap()), 2);
    }

    #[test]
    fn a_tree_without_processors_lists_no_hart() {
        let mut fdt = FdtWriter::new().unwrap();
        let root = fdt.begin_node("").unwrap();
        fdt.end_node(root).unwrap();
        assert_eq!(listed(Fdt::new(&fdt.finish().unwrap()).unwrap()), 0);
    }
}
