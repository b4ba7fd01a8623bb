//! Build, run and test commands of the workspace.
fn main() {}
