//! The two-stage walk in software.
