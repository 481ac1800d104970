//! The instructions of the matrix unit, and the same in plain Rust where there is none.

use super::{PANEL, SIDE, TILES, Tile};

/// The unit's registers, ready for whole tiles, on this thread; plain Rust where there is no unit.
pub(super) struct Tiles {
    on_unit: bool,
}

impl Tiles {
    pub(super) fn new() -> Self {
        let on_unit = is_available();
        if on_unit {
            #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
            amx::configure();
        }
        Self { on_unit }
    }

    /// Adds the product of two panels to the 32 × 32 numbers at the beginning of `c`, whose rows are
    /// `stride` apart. Meanwhile memory is asked for a quarter of the panel `ahead`, which is the next
    /// in the place of `b`; the number beside it says which.
    ///
    /// # Panics
    ///
    /// If the panels are not of one length, or `c` is too short.
    pub(super) fn multiply_add(
        &self,
        a: &[Tile],
        b: &[Tile],
        c: &mut [f32],
        stride: usize,
        ahead: (&[Tile], usize),
    ) {
        assert!(a.len() == b.len() && a.len().is_multiple_of(TILES), "panels of as many steps");
        assert!(stride >= PANEL && c.len() >= (PANEL - 1) * stride + PANEL, "the result lies in its slice");
        if self.on_unit {
            #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
            amx::multiply_add(a, b, c, stride, ahead);
        } else {
            multiply_add_plainly(a, b, c, stride);
        }
    }
}

impl Drop for Tiles {
    fn drop(&mut self) {
        if self.on_unit {
            #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
            amx::release();
        }
    }
}

/// Whether this processor has the unit and the system lets this process use it.
pub(super) fn is_available() -> bool {
    #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
    return amx::is_available();
    #[cfg(not(all(target_arch = "x86_64", target_os = "linux")))]
    false
}

/// Parts of the first and of the second factor that are multiplied, the least products first.
const PRODUCTS: [(usize, usize); 6] = [(0, 2), (0, 1), (0, 0), (1, 0), (1, 1), (2, 0)];

pub(super) fn multiply_add_plainly(a: &[Tile], b: &[Tile], c: &mut [f32], stride: usize) {
    let number =
        |word: u32, odd: usize| f32::from_bits(if odd == 1 { word & 0xffff_0000 } else { word << 16 });
    for (a, b) in a.chunks_exact(TILES).zip(b.chunks_exact(TILES)) {
        for (of_a, of_b) in PRODUCTS {
            for (row, column) in (0..PANEL).flat_map(|row| (0..PANEL).map(move |column| (row, column))) {
                let line = &a[2 * of_a + row / SIDE].0[row % SIDE];
                let pairs = &b[2 * of_b + column / SIDE].0;
                let sum = &mut c[row * stride + column];
                for (x, pair) in line.iter().zip(pairs) {
                    for odd in 0..2 {
                        *sum = number(*x, odd).mul_add(number(pair[column % SIDE], odd), *sum);
                    }
                }
            }
        }
    }
}

/// `asm!`, since the intrinsics are not stable. The products of a batch of four prompts take 0.70 of
/// the time that they take by vectors (Intel Xeon with AMX, two threads).
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
#[allow(unsafe_code)]
mod amx {
    use std::{
        arch::{asm, x86_64::__cpuid_count},
        sync::LazyLock,
    };

    use super::{PANEL, SIDE, TILES, Tile};

    const TILE_BYTES: usize = size_of::<Tile>();
    const ROW_BYTES: usize = TILE_BYTES / SIDE;

    pub(super) fn is_available() -> bool {
        static AVAILABLE: LazyLock<bool> = LazyLock::new(|| {
            /// `amx-bf16` and `amx-tile` in EDX of leaf 7.
            const FEATURES: u32 = 1 << 22 | 1 << 24;
            const ARCH_REQ_XCOMP_PERM: i32 = 0x1023;
            const XFEATURE_XTILEDATA: i32 = 18;
            let has_leaf = __cpuid_count(0, 0).eax >= 7;
            has_leaf
                && __cpuid_count(7, 0).edx & FEATURES == FEATURES
                // SAFETY: asks the kernel for room for the registers; it touches no memory of ours.
                && unsafe { libc::syscall(libc::SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) } == 0
        });
        *AVAILABLE
    }

    /// The operand of `ldtilecfg`.
    #[repr(C, align(64))]
    struct Configuration {
        palette: u8,
        start_row: u8,
        reserved: [u8; 14],
        row_bytes: [u16; 16],
        rows: [u8; 16],
    }

    static WHOLE_TILES: Configuration = {
        let (mut row_bytes, mut rows) = ([0; 16], [0; 16]);
        let mut register = 0;
        while register < 8 {
            row_bytes[register] = ROW_BYTES as u16;
            rows[register] = SIDE as u8;
            register += 1;
        }
        Configuration { palette: 1, start_row: 0, reserved: [0; 14], row_bytes, rows }
    };

    pub(super) fn configure() {
        // SAFETY: the unit is there, and the operand is the 64 bytes that it wants.
        unsafe { asm!("ldtilecfg [{}]", in(reg) &raw const WHOLE_TILES, options(nostack, readonly)) }
    }

    pub(super) fn release() {
        // SAFETY: the unit is there; only its registers change.
        unsafe {
            asm!(
                "tilerelease",
                out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                options(nostack, nomem),
            );
        }
    }

    /// Registers 0–3 hold the result, 4 and 5 a part of `a`, 6 and 7 a part of `b`.
    pub(super) fn multiply_add(
        a: &[Tile],
        b: &[Tile],
        c: &mut [f32],
        stride: usize,
        (ahead, quarter): (&[Tile], usize),
    ) {
        let steps = a.len() / TILES;
        if steps == 0 {
            return;
        }
        debug_assert!(b.len() == a.len() && c.len() >= (PANEL - 1) * stride + PANEL);
        let c = c.as_mut_ptr();
        let ahead = ahead.as_ptr().cast::<u8>().wrapping_add(quarter * steps * TILES * TILE_BYTES / 4);
        // SAFETY: the registers are configured for tiles of 16 rows of 64 bytes. Both panels have
        // `steps` times six tiles, and `c` has 32 rows of 32 numbers, `stride` apart (the caller
        // checks both). `ahead` is only asked for, which never fails.
        unsafe {
            asm!(
                "tileloadd tmm0, [{c} + {stride}]",
                "tileloadd tmm1, [{c} + {stride} + 64]",
                "tileloadd tmm2, [{lower} + {stride}]",
                "tileloadd tmm3, [{lower} + {stride} + 64]",
                "2:",
                // a0·b2
                "tileloadd tmm4, [{a} + {row}]",
                "tileloadd tmm6, [{b} + {row} + 4096]",
                "tdpbf16ps tmm0, tmm4, tmm6",
                "prefetcht1 [{ahead} + 0]",
                "tileloadd tmm7, [{b} + {row} + 5120]",
                "tdpbf16ps tmm1, tmm4, tmm7",
                "prefetcht1 [{ahead} + 64]",
                "tileloadd tmm5, [{a} + {row} + 1024]",
                "tdpbf16ps tmm2, tmm5, tmm6",
                "prefetcht1 [{ahead} + 128]",
                "tdpbf16ps tmm3, tmm5, tmm7",
                "prefetcht1 [{ahead} + 192]",
                // a0·b1
                "tileloadd tmm6, [{b} + {row} + 2048]",
                "tdpbf16ps tmm0, tmm4, tmm6",
                "prefetcht1 [{ahead} + 256]",
                "tileloadd tmm7, [{b} + {row} + 3072]",
                "tdpbf16ps tmm1, tmm4, tmm7",
                "prefetcht1 [{ahead} + 320]",
                "tdpbf16ps tmm2, tmm5, tmm6",
                "prefetcht1 [{ahead} + 384]",
                "tdpbf16ps tmm3, tmm5, tmm7",
                "prefetcht1 [{ahead} + 448]",
                // a0·b0
                "tileloadd tmm6, [{b} + {row}]",
                "tdpbf16ps tmm0, tmm4, tmm6",
                "prefetcht1 [{ahead} + 512]",
                "tileloadd tmm7, [{b} + {row} + 1024]",
                "tdpbf16ps tmm1, tmm4, tmm7",
                "prefetcht1 [{ahead} + 576]",
                "tdpbf16ps tmm2, tmm5, tmm6",
                "prefetcht1 [{ahead} + 640]",
                "tdpbf16ps tmm3, tmm5, tmm7",
                "prefetcht1 [{ahead} + 704]",
                // a1·b0
                "tileloadd tmm4, [{a} + {row} + 2048]",
                "tdpbf16ps tmm0, tmm4, tmm6",
                "prefetcht1 [{ahead} + 768]",
                "tdpbf16ps tmm1, tmm4, tmm7",
                "prefetcht1 [{ahead} + 832]",
                "tileloadd tmm5, [{a} + {row} + 3072]",
                "tdpbf16ps tmm2, tmm5, tmm6",
                "prefetcht1 [{ahead} + 896]",
                "tdpbf16ps tmm3, tmm5, tmm7",
                "prefetcht1 [{ahead} + 960]",
                // a1·b1
                "tileloadd tmm6, [{b} + {row} + 2048]",
                "tdpbf16ps tmm0, tmm4, tmm6",
                "prefetcht1 [{ahead} + 1024]",
                "tileloadd tmm7, [{b} + {row} + 3072]",
                "tdpbf16ps tmm1, tmm4, tmm7",
                "prefetcht1 [{ahead} + 1088]",
                "tdpbf16ps tmm2, tmm5, tmm6",
                "prefetcht1 [{ahead} + 1152]",
                "tdpbf16ps tmm3, tmm5, tmm7",
                "prefetcht1 [{ahead} + 1216]",
                // a2·b0
                "tileloadd tmm4, [{a} + {row} + 4096]",
                "tileloadd tmm6, [{b} + {row}]",
                "tdpbf16ps tmm0, tmm4, tmm6",
                "prefetcht1 [{ahead} + 1280]",
                "tileloadd tmm7, [{b} + {row} + 1024]",
                "tdpbf16ps tmm1, tmm4, tmm7",
                "prefetcht1 [{ahead} + 1344]",
                "tileloadd tmm5, [{a} + {row} + 5120]",
                "tdpbf16ps tmm2, tmm5, tmm6",
                "prefetcht1 [{ahead} + 1408]",
                "tdpbf16ps tmm3, tmm5, tmm7",
                "prefetcht1 [{ahead} + 1472]",
                "add {a}, 6144",
                "add {b}, 6144",
                "add {ahead}, 1536",
                "dec {steps}",
                "jnz 2b",
                "tilestored [{c} + {stride}], tmm0",
                "tilestored [{c} + {stride} + 64], tmm1",
                "tilestored [{lower} + {stride}], tmm2",
                "tilestored [{lower} + {stride} + 64], tmm3",
                c = in(reg) c,
                lower = in(reg) c.add(SIDE * stride),
                stride = in(reg) stride * size_of::<f32>(),
                row = in(reg) ROW_BYTES,
                a = inout(reg) a.as_ptr() => _,
                b = inout(reg) b.as_ptr() => _,
                ahead = inout(reg) ahead => _,
                steps = inout(reg) steps => _,
                out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                options(nostack),
            );
        }
    }
}
