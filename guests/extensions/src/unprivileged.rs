//! Extensions of the unprivileged architecture. Few of them have an enable bit that a hypervisor
//! could clear: those that a machine has and that have none are given to the guest.

use core::sync::atomic::Ordering;

use crate::probe::{CACHE_BLOCK, Outcome, Probe, all_of, area, area_word, expect};
use crate::{execute, gives};

const HINT: &str = "its instructions are hints, which every hart executes as nothing";
const PROPERTY: &str = "it promises how memory behaves, and has no instruction of its own";
/// Why an extension that is a name cannot be hidden.
pub const NAME: &str = "it is a name for others, which are tried one by one";
const NO_ENABLE: &str = "it has no state and no enable bit";

/// The probes.
pub const PROBES: &[Probe] = &[
    Probe::new("i", gives!(5; "+m", 2u32, 3u32, "add a2, a0, a1")),
    Probe::new("m", gives!(6; "+m", 45u32, 7u32, "div a2, a0, a1")),
    Probe::part_of(
        "zmmul",
        &["m"],
        gives!(42; "+m", 6u32, 7u32, "mul a2, a0, a1"),
    ),
    Probe::part_of("a", &["zaamo"], atomic_add),
    Probe::part_of("zaamo", &["a"], atomic_add),
    Probe::part_of("zalrsc", &["a"], reservation),
    Probe::new(
        "f",
        gives!(5; "+f", 2u32, 3u32, "fcvt.s.l fa0, a0", "fcvt.s.l fa1, a1", "fadd.s fa0, fa0, fa1", "fcvt.l.s a2, fa0"),
    ),
    Probe::new(
        "d",
        gives!(6; "+d", 2u32, 3u32, "fcvt.d.l fa0, a0", "fcvt.d.l fa1, a1", "fmul.d fa0, fa0, fa1", "fcvt.l.d a2, fa0"),
    ),
    Probe::new("c", compressed),
    Probe::part_of("zca", &["c"], compressed),
    Probe::part_of("zcd", &["c"], || {
        expect(
            execute!(
                "+c,+d",
                area(&[77]),
                0u32,
                "c.fld fa0, 0(a0)",
                "fmv.x.d a2, fa0"
            ),
            77,
        )
    }),
    Probe::new(
        "zcb",
        gives!(42; "+zcb,+m", 6u32, 7u32, "mv a2, a0", "c.mul a2, a1"),
    ),
    // Without Zcmop an encoding of c.lui with immediate zero, which is reserved.
    Probe::new(
        "zcmop",
        gives!(9; "+zcmop,+zimop", 9u32, 0u32, "mv a2, a0", "c.mop.1"),
    ),
    Probe::new(
        "zimop",
        gives!(0; "+zimop", 9u32, 0u32, "li a2, 1", "mop.r.0 a2, a0"),
    ),
    Probe::open(
        "b",
        "it is a name for Zba, Zbb and Zbs",
        gives!(29; "+zba,+zbb,+zbs", 3u32, 0u32, "sh1add a1, a0, a0", "bseti a1, a1, 34", "clz a2, a1"),
    ),
    Probe::part_of(
        "zba",
        &["b"],
        gives!(13; "+zba", 5u32, 3u32, "sh1add a2, a0, a1"),
    ),
    Probe::part_of("zbb", &["b"], gives!(61; "+zbb", 5u32, 0u32, "clz a2, a0")),
    Probe::part_of(
        "zbs",
        &["b"],
        gives!(0x21; "+zbs", 1u32, 5u32, "bset a2, a0, a1"),
    ),
    Probe::new(
        "zbc",
        gives!(1; "+zbc", 1u64 << 63, 2u32, "clmulh a2, a0, a1"),
    ),
    Probe::open("zkn", NAME, || all_of(PROBES, &ZKN)),
    Probe::open("zks", NAME, || all_of(PROBES, &ZKS)),
    Probe::open(
        "zk",
        "it is a name for others and for Zkr, which is hidden",
        || all_of(PROBES, &ZKN),
    ),
    Probe::part_of(
        "zbkb",
        &["zk", "zkn", "zks"],
        gives!(0x80; "+zbkb", 1u32, 0u32, "brev8 a2, a0"),
    ),
    Probe::part_of(
        "zbkc",
        &["zk", "zkn", "zks", "zbc"],
        gives!(5; "+zbkc", 3u32, 3u32, "clmul a2, a0, a1"),
    ),
    Probe::part_of(
        "zbkx",
        &["zk", "zkn", "zks"],
        gives!(0x0102_0202_0202_0202; "+zbkx", 0x0102u32, 0x0100_0000_0000_0000u64, "xperm8 a2, a0, a1"),
    ),
    Probe::part_of(
        "zknd",
        &["zk", "zkn"],
        gives!(0x5252_5252_5252_5252; "+zknd", 0u32, 0u32, "aes64ds a2, a0, a1"),
    ),
    Probe::part_of(
        "zkne",
        &["zk", "zkn"],
        gives!(0x6363_6363_6363_6363; "+zkne", 0u32, 0u32, "aes64es a2, a0, a1"),
    ),
    Probe::part_of(
        "zknh",
        &["zk", "zkn"],
        gives!(0; "+zknh", 0u32, 0u32, "li a2, 1", "sha512sum0 a2, a0"),
    ),
    Probe::part_of(
        "zksed",
        &["zks"],
        gives!(0; "+zksed", 0u32, 0u32, "sm4ed a2, a0, a1, 0", "sub a2, a2, a2"),
    ),
    Probe::part_of(
        "zksh",
        &["zks"],
        gives!(0x0002_0201; "+zksh", 1u32, 0u32, "sm3p0 a2, a0", "xor a2, a2, zero"),
    ),
    Probe::open("zkt", "it promises how long instructions take", || {
        Outcome::Undecidable
    }),
    Probe::new(
        "zicond",
        gives!(7; "+zicond", 7u32, 0u32, "czero.nez a2, a0, a1"),
    ),
    Probe::new(
        "zacas",
        gives!(5; "+zacas", area(&[5]), 6u32, "li a2, 5", "amocas.d a2, a1, (a0)"),
    ),
    Probe::new(
        "zabha",
        gives!(0x99; "+zabha", area(&[0xff99]), 1u32, "amoadd.b a2, a1, (a0)", "andi a2, a2, 0xff"),
    ),
    // ld.aq a2, (a0), which no assembler knows.
    Probe::new(
        "zalasr",
        gives!(7; "+m", area(&[7]), 0u32, ".4byte 0x3405362f"),
    ),
    Probe::new(
        "zawrs",
        gives!(1; "+zawrs", area(&[1]), 0u32, "wrs.sto", "li a2, 1"),
    ),
    Probe::new(
        "zfa",
        gives!(2; "+zfa", 0u32, 0u32, "fli.d fa0, 2.0", "fcvt.l.d a2, fa0"),
    ),
    Probe::new(
        "zfh",
        gives!(5; "+zfh", 2u32, 3u32, "fcvt.h.l fa0, a0", "fcvt.h.l fa1, a1", "fadd.h fa0, fa0, fa1", "fcvt.l.h a2, fa0"),
    ),
    Probe::part_of(
        "zfhmin",
        &["zfh"],
        gives!(1; "+zfhmin", 0x3c00u32, 0u32, "fmv.h.x fa0, a0", "fcvt.s.h fa0, fa0", "fcvt.l.s a2, fa0"),
    ),
    Probe::new(
        "zfbfmin",
        gives!(1; "+zfbfmin", 0x3f80u32, 0u32, "fcvt.s.w fa0, zero", "fcvt.bf16.s fa1, fa0", "fmv.h.x fa0, a0", "fcvt.s.bf16 fa0, fa0", "fcvt.l.s a2, fa0"),
    ),
    Probe::new(
        "zicsr",
        gives!(1; "+zicsr", 0u32, 0u32, "csrw fflags, 1", "csrrw a2, fflags, zero"),
    ),
    Probe::new("zifencei", changed_code),
    Probe::new("zicntr", counters),
    // Nothing programs the counter, so it stands still, at whatever the firmware left.
    Probe::new(
        "zihpm",
        gives!(0; "+zicsr", 0u32, 0u32, "csrr a0, hpmcounter3", "csrr a1, hpmcounter3", "sub a2, a1, a0"),
    ),
    Probe::new("zicbom", || {
        let (_, trap) = execute!(
            "+zicbom",
            area(&[77]),
            0u32,
            "cbo.clean (a0)",
            "cbo.flush (a0)",
            "cbo.inval (a0)"
        );
        expect((area_word(0), trap), 77)
    }),
    Probe::open(
        "zicbop",
        HINT,
        gives!(0; "+zicbop", area(&[]), 0u32, "prefetch.r 0(a0)", "prefetch.w 0(a0)"),
    ),
    Probe::new("zicboz", || {
        let (_, trap) = execute!("+zicboz", area(&[7; 24]) + 72, 0u32, "cbo.zero (a0)");
        expect(((0..24).map(area_word).sum(), trap), 7 * 16)
    }),
    Probe::open("zic64b", PROPERTY, block_of_64),
    Probe::open("ziccamoa", PROPERTY, atomic_add),
    Probe::open("ziccrse", PROPERTY, reservation),
    Probe::open("za64rs", PROPERTY, reservation),
    Probe::open("ziccif", PROPERTY, changed_code),
    Probe::open("zicclsm", PROPERTY, || {
        expect(
            execute!("+m", area(&[0x7700, 0]), 0u32, "ld a2, 1(a0)"),
            0x77,
        )
    }),
    Probe::open("zama16b", PROPERTY, || {
        expect(
            execute!(
                "+a",
                area(&[0, 0]),
                5u32,
                "addi a0, a0, 4",
                "amoadd.d a2, a1, (a0)",
                "ld a2, 0(a0)"
            ),
            5,
        )
    }),
    Probe::open(
        "ztso",
        "it promises an order of accesses, which a hart without it may keep as well",
        || Outcome::Undecidable,
    ),
    Probe::open(
        "zihintntl",
        HINT,
        gives!(0; "+m", 0u32, 0u32, "add x0, x0, x2"),
    ),
    Probe::open(
        "zihintpause",
        HINT,
        gives!(0; "+m", 0u32, 0u32, ".4byte 0x0100000f"),
    ),
    Probe::new("zicfiss", gives!(0; "+m", 0u32, 0u32, "csrr a2, 0x011")),
    Probe::new("zkr", gives!(0; "+m", 0u32, 0u32, "csrrw a2, 0x015, zero")),
    Probe::open(
        "zicfilp",
        HINT,
        gives!(0; "+m", 0u32, 0u32, ".4byte 0x00000017"),
    ), // lpad 0
    Probe::open(
        "q",
        NO_ENABLE,
        gives!(0; "+m", 0u32, 0u32, ".4byte 0x06000053"),
    ), // fadd.q
];

/// What the two names stand for.
const ZKN: [&str; 6] = ["zbkb", "zbkc", "zbkx", "zkne", "zknd", "zknh"];
const ZKS: [&str; 5] = ["zbkb", "zbkc", "zbkx", "zksed", "zksh"];

/// `cbo.zero` clears 64 bytes that are aligned so; where it does not exist, the device tree names
/// that size, or none.
fn block_of_64() -> Outcome {
    let size = CACHE_BLOCK.load(Ordering::Relaxed);
    if size != 0 && size != 64 {
        return Outcome::Wrong(size);
    }
    let (_, trap) = execute!("+zicboz", area(&[7; 24]) + 72, 0u32, "cbo.zero (a0)");
    match trap {
        None => {
            let cleared = (0..24).fold(0, |cleared, word| {
                cleared | u64::from(area_word(word) == 0) << word
            });
            expect((cleared, None), 0xff << 8)
        }
        Some(_) if size == 64 => Outcome::Works,
        Some(_) => Outcome::Undecidable,
    }
}

fn atomic_add() -> Outcome {
    let added = execute!(
        "+a",
        area(&[5]),
        6u32,
        "amoadd.d a3, a1, (a0)",
        "ld a2, 0(a0)"
    );
    expect(added, 11)
}

/// A reservation that nobody disturbs holds, sooner or later.
fn reservation() -> Outcome {
    let stored = execute!(
        "+a",
        area(&[5]),
        6u32,
        "2: lr.d a2, (a0)",
        "sc.d a3, a1, (a0)",
        "bnez a3, 2b",
        "ld a2, 0(a0)"
    );
    expect(stored, 6)
}

fn compressed() -> Outcome {
    expect(execute!("+c", 0u32, 0u32, "c.li a2, 5", "c.addi a2, 6"), 11)
}

/// `cycle`, `time` and `instret` can be read, and go on.
fn counters() -> Outcome {
    let (steps, trap) = execute!(
        "+zicsr",
        0u32,
        0u32,
        "rdtime a2",
        "rdcycle a0",
        "rdinstret a1",
        "nop",
        "nop",
        "rdinstret a3",
        "sub a2, a3, a1"
    );
    match (steps, trap) {
        (_, Some(trap)) => Outcome::Trapped(trap),
        (0, None) => Outcome::Wrong(0),
        (_, None) => Outcome::Works,
    }
}

/// Code that was written and fenced runs as written.
fn changed_code() -> Outcome {
    let mut result = 0;
    for value in [11_u64, 22] {
        // `addi a2, zero, value` and `ret`.
        let code = area(&[0x0000_0613 | value << 20 | 0x0000_8067 << 32]);
        let (seen, trap) = execute!(
            "+m",
            code,
            0u32,
            "fence.i",
            "mv a3, ra",
            "jalr a0",
            "mv ra, a3"
        );
        if let Some(trap) = trap {
            return Outcome::Trapped(trap);
        }
        result = result * 100 + seen;
    }
    expect((result, None), 1122)
}
