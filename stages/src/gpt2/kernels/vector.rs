//! Vector instructions chosen while running, and the small functions that kernels are made of.
//!
//! A kernel is written once as plain Rust over slices and compiled for each instruction set.

use std::fmt;

/// The vector instructions that row kernels use; only those the processor was found to have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Instructions(Set);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Set {
    Portable,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    #[cfg(target_arch = "x86_64")]
    Avx512,
}

impl Instructions {
    /// What every processor of the target architecture has.
    pub const PORTABLE: Self = Self(Set::Portable);

    /// The fastest set that this processor has.
    pub fn best() -> Self {
        *Self::available().last().expect("the portable set is always there")
    }

    /// All sets that this processor has, the fastest last.
    pub fn available() -> Vec<Self> {
        let mut sets = vec![Self::PORTABLE];
        #[cfg(target_arch = "x86_64")]
        if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
            sets.push(Self(Set::Avx2));
            if is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512vl")
                && is_x86_feature_detected!("avx512dq")
                && is_x86_feature_detected!("avx512bw")
            {
                sets.push(Self(Set::Avx512));
            }
        }
        sets
    }

    pub(super) fn set(self) -> Set {
        self.0
    }
}

impl fmt::Display for Instructions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            Set::Portable => "portable",
            #[cfg(target_arch = "x86_64")]
            Set::Avx2 => "avx2",
            #[cfg(target_arch = "x86_64")]
            Set::Avx512 => "avx512",
        })
    }
}

/// Whether the portable set multiplies and adds in one instruction; elsewhere it would be a call.
pub(super) const PORTABLE_FMA: bool = cfg!(target_arch = "aarch64") || cfg!(target_feature = "fma");

/// Makes `fn name(instructions, …)` of an `#[inline(always)] fn body<const FMA: bool>(…)`.
macro_rules! vectorized {
    ($(#[$doc:meta])* $visibility:vis fn $name:ident($($arg:ident: $type:ty),* $(,)?) $(-> $out:ty)? = $body:ident) => {
        $(#[$doc])*
        #[allow(unsafe_code)]
        $visibility fn $name(instructions: $crate::gpt2::kernels::vector::Instructions, $($arg: $type),*) $(-> $out)? {
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma")]
            fn avx2($($arg: $type),*) $(-> $out)? {
                $body::<true>($($arg),*)
            }
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma,avx512f,avx512vl,avx512dq,avx512bw")]
            fn avx512($($arg: $type),*) $(-> $out)? {
                $body::<true>($($arg),*)
            }
            use $crate::gpt2::kernels::vector::{PORTABLE_FMA, Set};
            match instructions.set() {
                Set::Portable => $body::<PORTABLE_FMA>($($arg),*),
                // SAFETY: `Instructions` names only what the processor was found to have.
                #[cfg(target_arch = "x86_64")]
                Set::Avx2 => unsafe { avx2($($arg),*) },
                // SAFETY: as above.
                #[cfg(target_arch = "x86_64")]
                Set::Avx512 => unsafe { avx512($($arg),*) },
            }
        }
    };
}
pub(super) use vectorized;

/// Numbers that one step of a kernel takes at once.
pub(super) const LANES: usize = 16;

/// `a·b + c`, in one rounding where `FMA`.
#[inline(always)]
pub(super) fn mul_add<const FMA: bool>(a: f32, b: f32, c: f32) -> f32 {
    if FMA { a.mul_add(b, c) } else { a * b + c }
}

/// eˣ to 2 units in the last place; below -87 as at -87, above 88 as at 88, NaN stays NaN.
#[inline(always)]
pub(super) fn exp<const FMA: bool>(x: f32) -> f32 {
    /// 1.5·2²³: adding it leaves the nearest integer in the low bits.
    const ROUND: f32 = 12_582_912.0;
    // In this order of comparison a NaN passes.
    let x = if -87.0 > x { -87.0 } else { x };
    let x = if 88.0 < x { 88.0 } else { x };
    let shifted = mul_add::<FMA>(x, std::f32::consts::LOG2_E, ROUND);
    let n = shifted - ROUND;
    // ln 2 in two parts: the first has few bits, so that n times it is exact.
    let r = mul_add::<FMA>(-n, 0.693_359_4, x);
    let r = mul_add::<FMA>(-n, -2.121_944_4e-4, r);
    let p = mul_add::<FMA>(1.987_569_1e-4, r, 1.398_2e-3);
    let p = mul_add::<FMA>(p, r, 8.333_452e-3);
    let p = mul_add::<FMA>(p, r, 4.166_579_6e-2);
    let p = mul_add::<FMA>(p, r, 1.666_666_5e-1);
    let p = mul_add::<FMA>(p, r, 0.5);
    let y = mul_add::<FMA>(p * r, r, r) + 1.0;
    y * f32::from_bits((shifted.to_bits() << 23).wrapping_add(0x3f80_0000))
}

/// The sum of the lanes, in a fixed order.
#[inline(always)]
pub(super) fn sum_lanes(lanes: [f32; LANES]) -> f32 {
    let mut lanes = lanes;
    let mut width = LANES / 2;
    while width > 0 {
        for i in 0..width {
            lanes[i] += lanes[i + width];
        }
        width /= 2;
    }
    lanes[0]
}

#[inline(always)]
pub(super) fn dot_body<const FMA: bool>(a: &[f32], b: &[f32]) -> f32 {
    let ((a, a_rest), (b, b_rest)) = (a.as_chunks::<LANES>(), b.as_chunks::<LANES>());
    let mut sums = [0.0; LANES];
    for (a, b) in a.iter().zip(b) {
        for i in 0..LANES {
            sums[i] = mul_add::<FMA>(a[i], b[i], sums[i]);
        }
    }
    let rest = a_rest.iter().zip(b_rest).fold(0.0, |sum, (a, b)| mul_add::<FMA>(*a, *b, sum));
    sum_lanes(sums) + rest
}

vectorized! {
    /// The scalar product of `a` and `b`, as far as both go.
    pub fn dot(a: &[f32], b: &[f32]) -> f32 = dot_body
}

#[inline(always)]
fn largest_magnitude_body<const FMA: bool>(x: &[f32]) -> f32 {
    let (chunks, rest) = x.as_chunks::<LANES>();
    let mut largest = [0.0f32; LANES];
    // Bit patterns of magnitudes order like the magnitudes, and NaN comes last.
    for chunk in chunks {
        for i in 0..LANES {
            let (a, b) = (largest[i].to_bits(), chunk[i].abs().to_bits());
            largest[i] = f32::from_bits(if a > b { a } else { b });
        }
    }
    let bits = |x: &f32| x.abs().to_bits();
    f32::from_bits(largest.iter().chain(rest).map(bits).max().unwrap_or_default())
}

vectorized! {
    /// The largest magnitude in `x`, 0 for none; not a number if one is not a number.
    pub fn largest_magnitude(x: &[f32]) -> f32 = largest_magnitude_body
}
