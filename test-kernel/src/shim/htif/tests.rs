//! HTIF with hosts of every kind, on whose behalf the words are looked at.

use std::cell::{Cell, RefCell};

use super::*;

/// What a host does with a word.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Serves calls and commands.
    Serves,
    /// Serves commands, and answers 0 to a call (QEMU before 8.0).
    ServesCommands,
    /// Is not there.
    Nobody,
}

/// A host, and what it saw.
struct Host {
    kind: Kind,
    /// How often a word is looked at before the host takes it.
    slowness: u32,
    looks: Cell<u32>,
    tohost: Cell<u64>,
    fromhost: Cell<u64>,
    /// Each word that was stored.
    stored: RefCell<Vec<u64>>,
    screen: RefCell<Vec<u8>>,
    code: Cell<Option<u64>>,
    /// All looks at either word.
    effort: Cell<u64>,
}

impl Host {
    fn new(kind: Kind, slowness: u32) -> Htif<Self> {
        Htif::new(Self {
            kind,
            slowness,
            looks: Cell::new(0),
            tohost: Cell::new(0),
            fromhost: Cell::new(0),
            stored: RefCell::default(),
            screen: RefCell::default(),
            code: Cell::new(None),
            effort: Cell::new(0),
        })
    }

    /// A moment of the host's.
    fn act(&self) {
        self.effort.set(self.effort.get() + 1);
        let word = self.tohost.get();
        if word == 0 || self.kind == Kind::Nobody {
            return;
        }
        self.looks.set(self.looks.get() + 1);
        if self.looks.get() <= self.slowness {
            return;
        }
        self.looks.set(0);
        self.tohost.set(0);
        if word >> 48 != 0 {
            assert_eq!(word >> 48, 0x0101, "a device that there is not");
            self.screen.borrow_mut().push(word as u8);
            self.fromhost.set(0x0101 << 48 | 0x100);
        } else if word & 1 != 0 {
            self.code.set(Some(word >> 1));
        } else if self.kind == Kind::Serves {
            // SAFETY: the address of a request, which lives as long as the test.
            let request = unsafe { &*(word as *const [AtomicU64; 8]) };
            let [number, file, bytes, len] = [0, 1, 2, 3].map(|at| request[at].load(Relaxed));
            assert_eq!((number, file, len), (64, 1, 1));
            // SAFETY: as above, of the one byte.
            self.screen
                .borrow_mut()
                .push(unsafe { *(bytes as *const u8) });
            request[0].store(1, Relaxed);
            self.fromhost.set(1);
        }
    }
}

impl Words for Host {
    fn tohost(&self) -> u64 {
        self.act();
        self.tohost.get()
    }

    fn set_tohost(&self, word: u64) {
        self.stored.borrow_mut().push(word);
        self.tohost.set(word);
    }

    fn fromhost(&self) -> u64 {
        self.act();
        self.fromhost.get()
    }

    fn clear_fromhost(&self) {
        self.fromhost.set(0);
    }
}

const TEXT: &[u8] = b"odd and even: abcdefg 0123\n";

/// Prints the text, then ends with the code 3, and lets the host see to that.
fn run(htif: &Htif<Host>) {
    TEXT.iter().for_each(|&byte| htif.print(byte));
    htif.end(3);
    for _ in 0..1000 {
        htif.words.act();
    }
}

#[test]
fn a_host_that_serves_calls_prints_the_text_and_sees_the_end() {
    for slowness in [0, 1, 77] {
        let htif = Host::new(Kind::Serves, slowness);
        run(&htif);
        assert_eq!(*htif.words.screen.borrow(), TEXT);
        assert_eq!(htif.words.code.get(), Some(3));
    }
}

#[test]
fn no_word_but_the_last_has_the_bit_that_ends_a_run_unless_the_host_wants_commands() {
    for kind in [Kind::Serves, Kind::Nobody] {
        let htif = Host::new(kind, 0);
        run(&htif);
        let stored = htif.words.stored.borrow();
        let (last, before) = stored.split_last().unwrap();
        assert!(before.iter().all(|word| word & 1 == 0));
        assert_eq!(*last, 7);
    }
}

#[test]
fn a_host_that_does_not_answer_calls_gets_every_byte_by_commands() {
    for slowness in [0, 5] {
        let htif = Host::new(Kind::ServesCommands, slowness);
        run(&htif);
        assert_eq!(*htif.words.screen.borrow(), TEXT);
        assert_eq!(htif.words.code.get(), Some(3));
    }
}

#[test]
fn without_a_host_a_run_waits_once_and_its_end_is_stored() {
    let htif = Host::new(Kind::Nobody, 0);
    TEXT.iter().for_each(|&byte| htif.print(byte));
    let one_wait = htif.words.effort.get();
    for _ in 0..10_000 {
        htif.print(b'x');
    }
    htif.end(0);
    assert!(htif.words.effort.get() - one_wait < 50_000);
    assert_eq!(htif.words.stored.borrow().len(), 2);
    assert_eq!(htif.words.tohost.get(), 1);
}

#[test]
fn a_host_that_comes_late_prints_what_comes_then() {
    let mut htif = Host::new(Kind::Nobody, 0);
    TEXT.iter().for_each(|&byte| htif.print(byte));
    htif.words.kind = Kind::Serves;
    htif.words.act();
    htif.words.screen.borrow_mut().clear();
    run(&htif);
    assert_eq!(*htif.words.screen.borrow(), TEXT);
}
