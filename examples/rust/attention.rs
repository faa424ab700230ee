//! Attention on ndarray arrays: one causal layer forward and backward, with grouped heads. It prints what examples/c does.
//!
//!     cargo run --example attention          in bindings/rust

use dlattn::Attention;
use ndarray::{s, Array4, ArrayView1};

const B: usize = 1; // batch
const M: usize = 6; // tokens
const H: usize = 4; // query heads
const G: usize = 2; // key/value heads
const D: usize = 8; // head size

/// Numbers in [-1, 1), the same in every language.
fn fill(state: &mut u32, heads: usize) -> Array4<f32> {
    Array4::from_shape_simple_fn((B, M, heads, D), || {
        *state = state.wrapping_mul(1664525).wrapping_add(1013904223);
        (*state >> 8) as f32 / (1 << 23) as f32 - 1.0
    })
}

fn print(name: &str, x: ArrayView1<f32>) {
    let numbers: Vec<String> = x.iter().map(|x| format!(" {}{:.4}", if *x < 0.0 { "" } else { " " }, x)).collect();
    println!("{:<20}{}", name, numbers.concat());
}

fn main() -> dlattn::Result<()> {
    let mut state = 1;
    let [q, k, v, dout] = [H, G, G, H].map(|heads| fill(&mut state, heads)); // dout: from some loss

    let attention = Attention::new(&q, &k, &v).causal();
    let forward = attention.forward()?;
    let gradients = attention.backward(&forward, &dout)?;

    print("v[0,0,0,:]", v.slice(s![0, 0, 0, ..]));
    print("out[0,0,0,:]", forward.out.slice(s![0, 0, 0, ..]));
    print("out[0,5,3,:]", forward.out.slice(s![0, 5, 3, ..]));
    print("lse[0,0,:]", forward.lse.slice(s![0, 0, ..]));
    print("dq[0,5,3,:]", gradients.dq.slice(s![0, 5, 3, ..]));
    print("dk[0,0,0,:]", gradients.dk.slice(s![0, 0, 0, ..]));
    print("dv[0,0,0,:]", gradients.dv.slice(s![0, 0, 0, ..]));
    Ok(())
}
