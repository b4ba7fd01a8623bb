//! A software hart that behaves as the specification says.
