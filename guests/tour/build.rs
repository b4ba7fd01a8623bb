//! Links the guest where S-mode loaders put it.

fn main() {
    guest_kit::link::guest(None);
}
