//! Rust's runner for bench/languages.py: times named bench cases through the crate dlattn, on ndarray's arrays.
//!
//!     run CASES.json THREADS BUDGET      names of cases on stdin, one a line
//!
//! Each name is answered with one line: a JSON array of results, as bench/README.md says; so do bench/run.c, run.py, run.jl.

use std::error::Error;
use std::io::{stdin, stdout, BufRead, Write};
use std::time::Instant;

use dlattn::half::{bf16, f16};
use dlattn::ndarray::ArrayD;
use dlattn::{Attention, Backward, Exec, Float, Layout, TensorMut};
use serde_json::{json, Value};

/// A sample is one call, or as many as take these seconds.
const SHORTEST: f64 = 50e-6;

// ---- the data, by the rule of bench/README.md --------------------------------------------------------------------------

/// The tensors' numbers.
#[derive(Clone, Copy)]
enum Name {
    Q = 1,
    K,
    V,
    Dout,
    Bias,
    Mask,
    Sinks,
}

trait Number: Float {
    fn narrow(x: f32) -> Self;
    fn wide(self) -> f64;
}

macro_rules! numbers {
    ($($kind:ty: $narrow:expr, $wide:expr;)*) => { $(
        impl Number for $kind {
            fn narrow(x: f32) -> Self {
                $narrow(x)
            }
            fn wide(self) -> f64 {
                $wide(self)
            }
        }
    )* };
}

numbers! {
    f16: f16::from_f32, f16::to_f64;
    bf16: bf16::from_f32, bf16::to_f64;
    f32: |x| x, f64::from;
    f64: f64::from, |x| x;
}

fn hashed(name: Name, n: usize) -> u32 {
    let x = (n as u32).wrapping_add((name as u32).wrapping_mul(0x9e37_79b9));
    let x = (x ^ (x >> 16)).wrapping_mul(0x7feb_352d);
    let x = (x ^ (x >> 15)).wrapping_mul(0x846c_a68b);
    x ^ (x >> 16)
}

/// An array of a value for each row-major index.
fn array<T>(shape: Vec<usize>, value: impl Fn(usize) -> T) -> ArrayD<T> {
    let count = shape.iter().product();
    ArrayD::from_shape_vec(shape, (0..count).map(value).collect()).expect("as many elements as the shape has")
}

fn floats<T: Number>(name: Name, shape: Vec<usize>) -> ArrayD<T> {
    array(shape, |n| T::narrow((hashed(name, n) >> 8) as f32 / (1 << 23) as f32 - 1.0))
}

fn zeros<T: Default>(shape: &[usize]) -> ArrayD<T> {
    array(shape.to_vec(), |_| T::default())
}

// ---- a case -------------------------------------------------------------------------------------------------------------

fn size(case: &Value, key: &str) -> usize {
    case[key].as_u64().expect("a size") as usize
}

/// The shape of an array that the case describes by letters.
fn shape(case: &Value, letters: &str) -> Vec<usize> {
    letters
        .chars()
        .map(|letter| if letter == '1' { 1 } else { size(case, &letter.to_uppercase().to_string()) })
        .collect()
}

fn tokens(case: &Value, [i, h, d]: [char; 3]) -> Vec<usize> {
    let bshd = case["layout"] == "bshd";
    shape(case, &if bshd { format!("b{i}{h}{d}") } else { format!("b{h}{i}{d}") })
}

fn segments(case: &Value, side: &str) -> ArrayD<i32> {
    let length = size(case, side);
    array(vec![size(case, "B"), length], |n| (n % length * 4 / length) as i32 - 1 + (n / length) as i32)
}

fn pair(case: &Value, key: &str) -> Option<(i64, i64)> {
    Some((case[key][0].as_i64()?, case[key][1].as_i64()?))
}

struct Inputs<T> {
    q: ArrayD<T>,
    k: ArrayD<T>,
    v: ArrayD<T>,
    dout: ArrayD<T>,
    bias: Option<ArrayD<T>>,
    mask: Option<ArrayD<u8>>,
    alibi: Option<ArrayD<T>>,
    sinks: Option<ArrayD<T>>,
    segments: Option<[ArrayD<i32>; 2]>,
    layout: Layout,
    causal: bool,
    top_left: bool,
    window: Option<(i64, i64)>,
    block_window: Option<(i64, i64)>,
    scale: Option<f64>,
    softcap: f64,
    dropout: Option<f64>,
    seed: u64,
    offset: u64,
    exec: Exec,
}

impl<T: Number> Inputs<T> {
    fn new(case: &Value, threads: i32) -> Self {
        let has = |flag: &str| case["flags"].as_array().is_some_and(|flags| flags.iter().any(|f| f == flag));
        let by_letters = |name, key: &str| case[key].as_str().map(|letters| floats(name, shape(case, letters)));
        Inputs {
            q: floats(Name::Q, tokens(case, ['m', 'h', 'd'])),
            k: floats(Name::K, tokens(case, ['n', 'g', 'd'])),
            v: floats(Name::V, tokens(case, ['n', 'g', 'e'])),
            dout: floats(Name::Dout, tokens(case, ['m', 'h', 'e'])),
            bias: by_letters(Name::Bias, "bias"),
            mask: case["mask"].as_str().map(|l| array(shape(case, l), |n| u8::from(hashed(Name::Mask, n) % 8 < 5))),
            alibi: case["alibi"]
                .as_str()
                .map(|l| array(shape(case, l), |n| T::narrow(0.5f32.powi(1 + (n % 7) as i32)))),
            sinks: case["sinks"].as_i64().map(|_| floats(Name::Sinks, shape(case, "h"))),
            segments: case["segments"].as_str().map(|_| [segments(case, "M"), segments(case, "N")]),
            layout: if case["layout"] == "bshd" { Layout::Bshd } else { Layout::Bhsd },
            causal: has("causal"),
            top_left: has("top_left"),
            window: pair(case, "window"),
            block_window: pair(case, "block_window"),
            scale: case["scale"].as_f64(),
            softcap: case["softcap"].as_f64().unwrap_or(0.0),
            dropout: case["dropout"].as_f64(),
            seed: case["seed"].as_u64().unwrap_or(0),
            offset: case["offset"].as_u64().unwrap_or(0),
            exec: Exec::new().num_threads(threads),
        }
    }

    /// What a user writes, once more in each call.
    fn attention(&self) -> Attention<'_, T> {
        let mut a = Attention::new(&self.q, &self.k, &self.v).layout(self.layout).softcap(self.softcap).exec(self.exec);
        if self.causal {
            a = a.causal();
        }
        if self.top_left {
            a = a.top_left();
        }
        if let Some((left, right)) = self.window {
            a = a.window(left, right);
        }
        if let Some((size, count)) = self.block_window {
            a = a.block_window(size, count);
        }
        if let Some(scale) = self.scale {
            a = a.scale(scale);
        }
        if let Some(probability) = self.dropout {
            a = a.dropout(probability, self.seed, self.offset);
        }
        if let Some(bias) = &self.bias {
            a = a.bias(bias);
        }
        if let Some(mask) = &self.mask {
            a = a.mask(mask);
        }
        if let Some(slopes) = &self.alibi {
            a = a.alibi_slopes(slopes);
        }
        if let Some(sinks) = &self.sinks {
            a = a.sinks(sinks);
        }
        if let Some([q, k]) = &self.segments {
            a = a.q_segments(q).kv_segments(k);
        }
        a
    }
}

struct Problem<T: Number> {
    inputs: Inputs<T>,
    out: ArrayD<T>,
    lse: ArrayD<T::Wide>,
    gradients: [Option<ArrayD<T>>; 5],
}

impl<T: Number> Problem<T> {
    fn new(case: &Value, threads: i32) -> Self {
        let inputs = Inputs::new(case, threads);
        let like = |parent: &ArrayD<T>| Some(zeros(parent.shape()));
        let gradients = [
            like(&inputs.q),
            like(&inputs.k),
            like(&inputs.v),
            inputs.bias.as_ref().and_then(like),
            inputs.sinks.as_ref().and_then(like),
        ];
        Problem { out: zeros(inputs.dout.shape()), lse: zeros(&shape(case, "bhm")), inputs, gradients }
    }

    fn forward(&mut self) -> dlattn::Result<()> {
        self.inputs.attention().forward_into(&mut self.out, Some(TensorMut::from(&mut self.lse)))
    }

    fn backward(&mut self) -> dlattn::Result<()> {
        let [dq, dk, dv, dbias, dsinks] = &mut self.gradients;
        let mut call = Backward::new(&self.out, &self.lse, &self.inputs.dout);
        if let (Some(dq), Some(dk), Some(dv)) = (dq, dk, dv) {
            call = call.dq(dq).dk(dk).dv(dv);
        }
        if let Some(dbias) = dbias {
            call = call.dbias(dbias);
        }
        if let Some(dsinks) = dsinks {
            call = call.dsinks(dsinks);
        }
        self.inputs.attention().backward_into(call)
    }
}

// ---- times --------------------------------------------------------------------------------------------------------------

/// Seconds of one of `times` calls.
fn timed(call: &mut impl FnMut() -> dlattn::Result<()>, times: usize) -> dlattn::Result<f64> {
    let start = Instant::now();
    for _ in 0..times {
        call()?;
    }
    Ok(start.elapsed().as_secs_f64() / times as f64)
}

/// Seconds of a call, and how many calls were timed; at least three come before.
fn median(mut call: impl FnMut() -> dlattn::Result<()>, budget: f64) -> dlattn::Result<(f64, usize)> {
    let begun = Instant::now();
    let (mut each, mut warm) = (f64::INFINITY, 0);
    while warm < 3 || begun.elapsed().as_secs_f64() < 0.1 * budget {
        each = each.min(timed(&mut call, 1)?);
        warm += 1;
    }
    let burst = if each < SHORTEST { (SHORTEST / each) as usize + 1 } else { 1 };
    let samples = ((budget / (each * burst as f64)) as usize).clamp(5, 100_000);
    let mut times = (0..samples).map(|_| timed(&mut call, burst)).collect::<dlattn::Result<Vec<f64>>>()?;
    times.sort_by(f64::total_cmp);
    Ok((times[samples / 2], samples * burst))
}

/// The sum of each array's mean absolute value: the same in every language.
fn mean_abs<'a, T: Number>(arrays: impl Iterator<Item = &'a ArrayD<T>>) -> f64 {
    arrays.map(|array| array.iter().map(|x| x.wide().abs()).sum::<f64>() / array.len() as f64).sum()
}

fn results<T: Number>(case: &Value, threads: i32, budget: f64) -> dlattn::Result<Value> {
    let mut problem = Problem::<T>::new(case, threads);
    let version = dlattn::version();
    let result = |pass: &str, (seconds, repeats): (f64, usize), mean_abs: f64| {
        json!({"provider": "dlattn", "language": "rust",
               "version": format!("{}.{}.{}", version / 10000, version / 100 % 100, version % 100), "case": case["name"],
               "pass": pass, "dtype": case["dtype"], "threads": threads, "repeats": repeats, "ms": seconds * 1e3,
               "mean_abs": mean_abs})
    };
    let time = median(|| problem.forward(), budget)?;
    let mut found = vec![result("forward", time, mean_abs(std::iter::once(&problem.out)))];
    if case["forward_only"].is_null() {
        let time = median(|| problem.backward(), budget)?;
        found.push(result("backward", time, mean_abs(problem.gradients.iter().flatten())));
    }
    Ok(found.into())
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().collect();
    let [_, file, threads, budget] = &arguments[..] else { return Err("usage: run CASES.json THREADS BUDGET".into()) };
    let (threads, budget) = (threads.parse()?, budget.parse()?);
    let cases: Vec<Value> = serde_json::from_str(&std::fs::read_to_string(file)?)?;
    for name in stdin().lock().lines() {
        let name = name?;
        let case = cases.iter().find(|case| case["name"] == name).ok_or_else(|| format!("no case is named {name}"))?;
        let found = match case["dtype"].as_str() {
            Some("f16") => results::<f16>(case, threads, budget),
            Some("bf16") => results::<bf16>(case, threads, budget),
            Some("f64") => results::<f64>(case, threads, budget),
            _ => results::<f32>(case, threads, budget),
        }?;
        println!("{found}");
        stdout().flush()?;
    }
    Ok(())
}
