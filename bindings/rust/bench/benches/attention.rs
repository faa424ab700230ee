//! What a call costs: a problem of almost no work, for the host's share, and two whose speed is the kernels'.

use criterion::{criterion_group, criterion_main, Criterion, Throughput};
use dlattn::ndarray::{Array3, Array4};
use dlattn::{Attention, Backward, TensorMut};
use dlattn_bench::tensors;

const CASES: [(&str, [usize; 6]); 3] = [
    ("smallest", [1, 1, 1, 1, 1, 8]),
    ("decode_gqa", [1, 1, 4096, 32, 8, 64]),
    ("self_1024", [1, 1024, 1024, 8, 8, 64]),
];

fn forward(c: &mut Criterion) {
    let mut group = c.benchmark_group("forward");
    for (name, sizes) in CASES {
        let [q, k, v] = tensors(sizes);
        let [batch, m, n, heads, _, d] = sizes;
        let mut out = Array4::<f32>::zeros(q.dim());
        let mut lse = Array3::<f32>::zeros((batch, heads, m));
        let attention = Attention::new(&q, &k, &v);
        group.throughput(Throughput::Elements((4 * batch * m * n * heads * d) as u64)); // elements: flops
        group.bench_function(name, |bencher| {
            bencher.iter(|| attention.forward_into(&mut out, Some(TensorMut::from(&mut lse))).unwrap())
        });
    }
}

fn backward(c: &mut Criterion) {
    let mut group = c.benchmark_group("backward");
    for (name, sizes) in CASES {
        let [q, k, v] = tensors(sizes);
        let [batch, m, n, heads, _, d] = sizes;
        let attention = Attention::new(&q, &k, &v);
        let saved = attention.forward().unwrap();
        let (mut dq, mut dk, mut dv) = (q.clone(), k.clone(), v.clone());
        group.throughput(Throughput::Elements((10 * batch * m * n * heads * d) as u64));
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                let call = Backward::new(&saved.out, &saved.lse, &q);
                attention.backward_into(call.dq(&mut dq).dk(&mut dk).dv(&mut dv)).unwrap()
            })
        });
    }
}

criterion_group!(benches, forward, backward);
criterion_main!(benches);
