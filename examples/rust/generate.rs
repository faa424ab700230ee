//! Inference with a key/value cache: a small transformer layer with random weights, token after token, on views of the
//! cache; in the end the same tokens at once must give the same numbers.
//!
//!     cargo run --release --example generate          in bindings/rust

use dlattn::Attention;
use ndarray::{s, Array2, Array3, Array4, Axis};

const WIDTH: usize = 128;
const HEADS: usize = 8;
const GROUPS: usize = 2; // key/value heads
const SIZE: usize = WIDTH / HEADS;
const CAPACITY: usize = 256; // tokens that the cache holds
const WINDOW: i64 = 63; // a token sees itself and 63 before it

struct Layer {
    q: Array2<f32>,
    k: Array2<f32>,
    v: Array2<f32>,
    out: Array2<f32>,
}

impl Layer {
    fn new(state: &mut u32) -> Self {
        let mut random = |columns| {
            Array2::from_shape_simple_fn((WIDTH, columns), || {
                *state = state.wrapping_mul(1664525).wrapping_add(1013904223);
                ((*state >> 8) as f32 / (1 << 23) as f32 - 1.0) * 2.0 / (WIDTH as f32).sqrt()
            })
        };
        Layer { q: random(WIDTH), k: random(GROUPS * SIZE), v: random(GROUPS * SIZE), out: random(WIDTH) }
    }

    /// Rows of `x` [tokens, WIDTH] as [1, tokens, heads, SIZE].
    fn heads(x: &Array2<f32>, weight: &Array2<f32>) -> Array4<f32> {
        let y = x.dot(weight);
        let (tokens, columns) = y.dim();
        y.into_shape((1, tokens, columns / SIZE, SIZE)).expect("compact")
    }

    fn project(&self, x: &Array2<f32>, attended: ndarray::ArrayD<f32>) -> Array2<f32> {
        let rows = attended.into_shape((x.nrows(), WIDTH)).expect("compact");
        x + &rows.dot(&self.out)
    }

    /// All tokens at once.
    fn whole(&self, x: &Array2<f32>) -> dlattn::Result<Array2<f32>> {
        let [q, k, v] = [&self.q, &self.k, &self.v].map(|weight| Self::heads(x, weight));
        let attended = Attention::new(&q, &k, &v).causal().window(WINDOW, 0).forward()?;
        Ok(self.project(x, attended.out))
    }

    /// The next tokens; the cache [2, CAPACITY, GROUPS, SIZE] holds keys and values of `used` before them.
    fn next(&self, x: &Array2<f32>, cache: &mut Array4<f32>, used: usize) -> dlattn::Result<Array2<f32>> {
        let end = used + x.nrows();
        for (half, weight) in [&self.k, &self.v].into_iter().enumerate() {
            let new: Array3<f32> = Self::heads(x, weight).index_axis_move(Axis(0), 0);
            cache.slice_mut(s![half, used..end, .., ..]).assign(&new);
        }
        let (q, filled) = (Self::heads(x, &self.q), cache.slice(s![.., ..end, .., ..])); // a view: nothing is copied
        let (k, v) = filled.split_at(Axis(0), 1);
        let attended = Attention::new(&q, k, v).causal().window(WINDOW, 0).forward()?;
        Ok(self.project(x, attended.out))
    }
}

fn main() -> dlattn::Result<()> {
    let mut state = 1;
    let layer = Layer::new(&mut state);
    let mut cache = Array4::zeros((2, CAPACITY, GROUPS, SIZE));
    let prompt = Array2::from_shape_fn((40, WIDTH), |(i, j)| ((i * WIDTH + j) as f32).sin());

    // The prompt in one piece; then each output is the next input, and all of them are kept.
    let mut tokens = prompt.clone();
    let mut last = layer.next(&prompt, &mut cache, 0)?.slice(s![-1.., ..]).to_owned();
    let mut outputs = Array2::zeros((0, WIDTH));
    while tokens.nrows() < CAPACITY {
        let used = tokens.nrows();
        let input = last.mapv(f32::tanh);
        tokens.append(Axis(0), input.view()).expect("one row");
        last = layer.next(&input, &mut cache, used)?;
        outputs.append(Axis(0), last.view()).expect("one row");
    }

    let whole = layer.whole(&tokens)?;
    let off = (&whole.slice(s![40.., ..]) - &outputs).mapv(f32::abs).fold(0.0, |a: f32, &b| a.max(b));
    println!(
        "{} tokens one by one, {} at once: the outputs differ by at most {:e}",
        outputs.nrows(),
        tokens.nrows(),
        off
    );
    // sums of 16 to 128 products of numbers near 1, each off by some 2^-24: a wrong token would be off by far more
    assert!(off < 1e-4, "token by token must be the same as all at once");
    Ok(())
}
