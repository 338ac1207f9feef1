//! f16 as bits, for readers of scales and of caches alike.

/// f16 to f32 without a branch, exact: the bits moved into place are the number divided by
/// 2^112. (`half` looks for an instruction on every call.)
#[inline(always)]
pub(super) fn widen(h: u16) -> f32 {
    const TWO_112: f32 = f32::from_bits((112 + 127) << 23);
    let magnitude = (h as u32 & 0x7fff) << 13;
    let finite = (f32::from_bits(magnitude) * TWO_112).to_bits();
    let quiet = if magnitude > 0x0f80_0000 { 0x7fc0_0000 } else { 0x7f80_0000 };
    let bits = if magnitude < 0x0f80_0000 { finite } else { magnitude | quiet };
    f32::from_bits(bits | (h as u32 & 0x8000) << 16)
}

#[cfg(test)]
mod tests {
    #[test]
    fn widening_is_exact() {
        for h in 0..=u16::MAX {
            let want = half::f16::from_bits(h).to_f32();
            assert_eq!(super::widen(h).to_bits(), want.to_bits(), "{h:#06x}");
        }
    }
}
