//! The instructions that multiply tiles, and the same in plain Rust where there are none.

use super::{PANEL, Parts, SIDE, Tile};

/// What multiplies tiles.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unit {
    /// The matrix unit (AMX).
    #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
    Amx,
    /// Scalar products of pairs of bf16 numbers, a vector at once (AVX512-BF16).
    #[cfg(target_arch = "x86_64")]
    Pairs,
}

impl Unit {
    /// The fastest that this processor has, if it is faster than vectors of f32.
    pub(super) fn best(parts: Parts) -> Option<Self> {
        #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
        if amx::is_available() {
            return Some(Self::Amx);
        }
        #[cfg(target_arch = "x86_64")]
        if parts == Parts::One
            && is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bf16")
        {
            return Some(Self::Pairs);
        }
        let _ = parts;
        None
    }

    /// As the manuals call it.
    pub(super) fn name(self) -> &'static str {
        match self {
            #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
            Self::Amx => "amx",
            #[cfg(target_arch = "x86_64")]
            Self::Pairs => "avx512_bf16",
        }
    }
}

/// The unit, ready for whole tiles on this thread; plain Rust where there is none.
pub(super) struct Tiles {
    unit: Option<Unit>,
    parts: Parts,
}

impl Tiles {
    pub(super) fn new(parts: Parts) -> Self {
        let unit = Unit::best(parts);
        #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
        if unit == Some(Unit::Amx) {
            amx::configure();
        }
        Self { unit, parts }
    }

    /// Adds the product of two panels to the 32 × 32 numbers at the beginning of `c`, whose rows are
    /// `stride` apart. Meanwhile memory is asked for a quarter of the panel `ahead`, which is the next
    /// in the place of `b`; the number beside it says which.
    ///
    /// # Panics
    ///
    /// If the panels are not of one length, or `c` is too short.
    #[allow(unsafe_code)]
    pub(super) fn multiply_add(
        &self,
        a: &[Tile],
        b: &[Tile],
        c: &mut [f32],
        stride: usize,
        ahead: (&[Tile], usize),
    ) {
        assert!(a.len() == b.len() && a.len().is_multiple_of(self.parts.tiles()), "panels of as many steps");
        assert!(stride >= PANEL && c.len() >= (PANEL - 1) * stride + PANEL, "the result lies in its slice");
        match (self.unit, self.parts) {
            #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
            (Some(Unit::Amx), Parts::One) => amx::multiply_add(a, b, c, stride),
            #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
            (Some(Unit::Amx), Parts::Three) => amx::multiply_add_parts(a, b, c, stride, ahead),
            // SAFETY: `Unit::best` names what the processor was found to have.
            #[cfg(target_arch = "x86_64")]
            (Some(Unit::Pairs), Parts::One) => unsafe { pairs::multiply_add(a, b, c, stride) },
            _ => multiply_add_plainly(self.parts, a, b, c, stride),
        }
    }
}

impl Drop for Tiles {
    fn drop(&mut self) {
        #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
        if self.unit == Some(Unit::Amx) {
            amx::release();
        }
    }
}

/// Adds numbers in the order in which the matrix unit does.
pub(super) fn multiply_add_plainly(parts: Parts, a: &[Tile], b: &[Tile], c: &mut [f32], stride: usize) {
    // Parts of the first and of the second factor that are multiplied.
    let products: &[(usize, usize)] = match parts {
        Parts::One => &[(0, 0)],
        Parts::Three => &[(0, 2), (0, 1), (0, 0), (1, 0), (1, 1), (2, 0)],
    };
    let number =
        |word: u32, odd: usize| f32::from_bits(if odd == 1 { word & 0xffff_0000 } else { word << 16 });
    for (a, b) in a.chunks_exact(parts.tiles()).zip(b.chunks_exact(parts.tiles())) {
        for (of_a, of_b) in products {
            for (row, column) in (0..PANEL).flat_map(|row| (0..PANEL).map(move |column| (row, column))) {
                let line = &a[2 * of_a + row / SIDE].0[row % SIDE];
                let pairs = &b[2 * of_b + column / SIDE].0;
                let mut sums = [0.0; 2];
                for (x, pair) in line.iter().zip(pairs) {
                    for (odd, sum) in sums.iter_mut().enumerate() {
                        *sum = number(*x, odd).mul_add(number(pair[column % SIDE], odd), *sum);
                    }
                }
                c[row * stride + column] += sums[0] + sums[1];
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

    use super::{PANEL, Parts, SIDE, Tile};

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

    /// Of factors that are bf16 numbers. Registers 0–3 hold the result, 4 and 5 are of `a`, 6 and 7 of `b`.
    pub(super) fn multiply_add(a: &[Tile], b: &[Tile], c: &mut [f32], stride: usize) {
        let steps = a.len() / Parts::One.tiles();
        if steps == 0 {
            return;
        }
        debug_assert!(b.len() == a.len() && c.len() >= (PANEL - 1) * stride + PANEL);
        let c = c.as_mut_ptr();
        // SAFETY: the registers are configured for tiles of 16 rows of 64 bytes. Both panels have
        // `steps` times two tiles, and `c` has 32 rows of 32 numbers, `stride` apart (the caller
        // checks both).
        unsafe {
            asm!(
                "tileloadd tmm0, [{c} + {stride}]",
                "tileloadd tmm1, [{c} + {stride} + 64]",
                "tileloadd tmm2, [{lower} + {stride}]",
                "tileloadd tmm3, [{lower} + {stride} + 64]",
                "2:",
                "tileloadd tmm4, [{a} + {row}]",
                "tileloadd tmm6, [{b} + {row}]",
                "tdpbf16ps tmm0, tmm4, tmm6",
                "tileloadd tmm7, [{b} + {row} + 1024]",
                "tdpbf16ps tmm1, tmm4, tmm7",
                "tileloadd tmm5, [{a} + {row} + 1024]",
                "tdpbf16ps tmm2, tmm5, tmm6",
                "tdpbf16ps tmm3, tmm5, tmm7",
                "add {a}, 2048",
                "add {b}, 2048",
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
                steps = inout(reg) steps => _,
                out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                options(nostack),
            );
        }
    }

    /// As [`multiply_add`], of factors in three parts; 4 and 5 hold a part of `a`, 6 and 7 a part of `b`.
    pub(super) fn multiply_add_parts(
        a: &[Tile],
        b: &[Tile],
        c: &mut [f32],
        stride: usize,
        (ahead, quarter): (&[Tile], usize),
    ) {
        let steps = a.len() / Parts::Three.tiles();
        if steps == 0 {
            return;
        }
        debug_assert!(b.len() == a.len() && c.len() >= (PANEL - 1) * stride + PANEL);
        let c = c.as_mut_ptr();
        let ahead = ahead.as_ptr().cast::<u8>().wrapping_add(quarter * a.len() * TILE_BYTES / 4);
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

/// Products of bf16 numbers take half the time that they take in f32 (AMD EPYC with AVX512-BF16, two threads).
#[cfg(target_arch = "x86_64")]
#[allow(unsafe_code)]
mod pairs {
    use std::arch::x86_64::{
        __m512, __m512bh, __m512i, _mm512_dpbf16_ps, _mm512_loadu_ps, _mm512_loadu_si512, _mm512_set1_epi32,
        _mm512_storeu_ps,
    };

    use super::{PANEL, Parts, SIDE, Tile};
    use crate::gpt2::kernels::matrix_unit::Words;

    /// Rows of the result that are added to at once: with both halves of a panel 16 of the 32 registers.
    const ROWS: usize = 8;

    #[target_feature(enable = "avx512f,avx512bf16")]
    pub(super) fn multiply_add(a: &[Tile], b: &[Tile], c: &mut [f32], stride: usize) {
        for row in (0..PANEL).step_by(ROWS) {
            let (half, line) = (row / SIDE, row % SIDE);
            let mut sums: [[__m512; 2]; ROWS] = std::array::from_fn(|i| {
                let halves = c[(row + i) * stride..].as_chunks::<SIDE>().0;
                [sums(&halves[0]), sums(&halves[1])]
            });
            for (a, b) in a.chunks_exact(Parts::One.tiles()).zip(b.chunks_exact(Parts::One.tiles())) {
                let lines: &[Words; ROWS] = a[half].0[line..].first_chunk().expect("rows of a tile");
                for word in 0..SIDE {
                    let columns = [pairs(&b[0].0[word]), pairs(&b[1].0[word])];
                    for (sums, line) in sums.iter_mut().zip(lines) {
                        let x = bf16(_mm512_set1_epi32(line[word].cast_signed()));
                        sums[0] = _mm512_dpbf16_ps(sums[0], x, columns[0]);
                        sums[1] = _mm512_dpbf16_ps(sums[1], x, columns[1]);
                    }
                }
            }
            for (i, sums) in sums.iter().enumerate() {
                let halves = c[(row + i) * stride..].as_chunks_mut::<SIDE>().0;
                // SAFETY: each half is 16 numbers.
                unsafe {
                    _mm512_storeu_ps(halves[0].as_mut_ptr(), sums[0]);
                    _mm512_storeu_ps(halves[1].as_mut_ptr(), sums[1]);
                }
            }
        }
    }

    #[target_feature(enable = "avx512f")]
    fn sums(numbers: &[f32; SIDE]) -> __m512 {
        // SAFETY: the operand is 16 numbers.
        unsafe { _mm512_loadu_ps(numbers.as_ptr()) }
    }

    #[target_feature(enable = "avx512f")]
    fn pairs(words: &Words) -> __m512bh {
        // SAFETY: the operand is 16 words.
        bf16(unsafe { _mm512_loadu_si512(words.as_ptr().cast()) })
    }

    fn bf16(words: __m512i) -> __m512bh {
        // SAFETY: both are 64 bytes, and any bits are bf16 numbers.
        unsafe { std::mem::transmute(words) }
    }
}
