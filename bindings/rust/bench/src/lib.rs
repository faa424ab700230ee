//! Problems that are timed.

use dlattn::ndarray::Array4;

/// q, k, v of B, M, N, H, G, D.
pub fn tensors([batch, m, n, heads, groups, d]: [usize; 6]) -> [Array4<f32>; 3] {
    let mut state = 1u32;
    let mut array = |tokens, heads| {
        Array4::from_shape_simple_fn((batch, tokens, heads, d), || {
            state = state.wrapping_mul(1664525).wrapping_add(1013904223);
            (state >> 8) as f32 / (1 << 23) as f32 - 1.0
        })
    };
    [array(m, heads), array(n, groups), array(n, groups)]
}
