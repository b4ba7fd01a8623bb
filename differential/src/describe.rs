//! A case in words, for whoever has to understand why it fails.

use core::fmt;

use crate::choices::{Choices, Edit, EntryName, Operation};
use crate::world::World;

impl fmt::Display for Choices {
    /// One line for each choice that departs from the ordinary.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        macro_rules! lines {
            ($($field:ident)*) => {$(
                if let Some(value) = &self.$field {
                    writeln!(f, "  {} {value:x?}", stringify!($field))?;
                }
            )*};
        }
        lines! {
            vs_mode g_mode vs_level vs_napot tables_at tables_level page_at page_level g_napot address offset stray
            instruction user vs_sum vs_mxr host_sum host_mxr environment vs_flags g_flags tables_flags frame
        }
        for edit in self.edits.iter().flatten() {
            writeln!(f, "  {edit}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Edit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.entry {
            EntryName::Vs(_) => f.write_str("VS-stage entry")?,
            EntryName::GOfTable(..) => f.write_str("G-stage entry of a table")?,
            EntryName::GOfPage(_) => f.write_str("G-stage entry of the page")?,
        }
        match self.operation {
            Operation::Clear => f.write_str(" cleared"),
            Operation::Flip(bit) => write!(f, " with bit {bit} flipped"),
            Operation::Rights(rights) => write!(f, " with XWR {rights:03b}"),
            Operation::FlipPage(bit) => write!(f, " with bit {bit} of its page number flipped"),
            Operation::Lead(_) => f.write_str(" leading elsewhere"),
        }
    }
}

impl fmt::Display for World {
    /// The registers, the access, and each entry by its offset in the block.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mode = if self.supervisor { "VS" } else { "VU" };
        let name = self.instruction.name();
        writeln!(f, "  {name} at {:#x} as {mode}-mode", self.address)?;
        writeln!(f, "  vsatp {:#x} hgatp {:#x}", self.vsatp, self.hgatp)?;
        let flag = |set: bool, name| if set { name } else { "" };
        writeln!(
            f,
            "  status{}{}{}{}",
            flag(self.vs_sum, " vsstatus.SUM"),
            flag(self.vs_mxr, " vsstatus.MXR"),
            flag(self.host_sum, " sstatus.SUM"),
            flag(self.host_mxr, " sstatus.MXR"),
        )?;
        let (m, h, s) = (self.menvcfg, self.henvcfg, self.senvcfg);
        writeln!(f, "  menvcfg {m:#x} henvcfg {h:#x} senvcfg {s:#x}")?;
        for word in self.words() {
            writeln!(f, "  [{:#07x}] = {:#018x}", word.offset, word.value)?;
        }
        Ok(())
    }
}
