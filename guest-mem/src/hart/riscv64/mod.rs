//! The real instructions.
