//! Short names for the machines that tests ran on, so that a machine fits into the head of a column.

use super::Group;

/// A machine, with what was run on it.
#[derive(Debug)]
pub struct Machine<'a> {
    /// The name at the head of its column.
    pub short: String,
    /// The simulator, its board and its processor.
    pub long: &'a str,
    /// What was run on it.
    pub groups: Vec<&'a Group>,
}

/// The machines of `groups`, in the order in which they first appear.
pub fn of(groups: &[Group]) -> Vec<Machine<'_>> {
    let mut machines = Vec::<Machine<'_>>::new();
    for group in groups {
        let Some(long) = name_in(&group.name) else {
            continue;
        };
        match machines.iter_mut().find(|machine| machine.long == long) {
            Some(known) => known.groups.push(group),
            None => machines.push(Machine {
                short: String::new(),
                long,
                groups: vec![group],
            }),
        }
    }
    machines.sort_by_key(|machine| !is_qemu(machine.long));
    let mut qemus = 0;
    let mut others = 0;
    for machine in &mut machines {
        let (letter, number) = if is_qemu(machine.long) {
            ('Q', &mut qemus)
        } else {
            ('S', &mut others)
        };
        *number += 1;
        machine.short = format!("{letter}{number}");
    }
    machines
}

/// The groups that ran on the host, on no machine of their own.
pub fn on_the_host(groups: &[Group]) -> impl Iterator<Item = &Group> {
    groups.iter().filter(|group| name_in(&group.name).is_none())
}

/// The machine that a group's name ends with, without how much ran there (`, in short`, `, 4 harts`).
fn name_in(group: &str) -> Option<&str> {
    let start = ["QEMU ", "Spike "]
        .iter()
        .filter_map(|simulator| group.find(simulator))
        .min()?;
    let name = &group[start..];
    // The features of a processor are separated by commas without spaces.
    Some(name.split_once(", ").map_or(name, |(machine, _)| machine))
}

fn is_qemu(machine: &str) -> bool {
    machine.starts_with("QEMU ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(name: &str) -> Group {
        Group {
            name: name.into(),
            ..Group::default()
        }
    }

    #[test]
    fn groups_on_one_machine_share_a_column() {
        let groups = [
            group("host"),
            group("target, Spike 1.1 --isa=rv64gch, 1 hart"),
            group("target, QEMU 10.0 virt -cpu rv64,h=true"),
            group("differential, 9 cases of seed 1, QEMU 10.0 virt -cpu rv64,h=true"),
            group("target, Spike 1.1 --isa=rv64gch, 4 harts"),
            group("target, QEMU 7.2 virt -cpu max, in short"),
            group("runs, QEMU 7.2"),
        ];
        let found: Vec<_> = of(&groups)
            .into_iter()
            .map(|machine| (machine.short, machine.long, machine.groups.len()))
            .collect();
        let expected = [
            ("Q1", "QEMU 10.0 virt -cpu rv64,h=true", 2),
            ("Q2", "QEMU 7.2 virt -cpu max", 1),
            ("Q3", "QEMU 7.2", 1),
            ("S1", "Spike 1.1 --isa=rv64gch", 2),
        ];
        assert_eq!(
            found,
            expected.map(|(short, long, n)| (short.into(), long, n))
        );
        assert_eq!(on_the_host(&groups).count(), 1);
    }
}
