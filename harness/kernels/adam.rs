//! Adam (Kingma and Ba 2015) with decoupled weight decay (Loshchilov and Hutter 2019), one pass over memory.

use super::lanes::Kernel;

/// Values per chunk: a fixed size, so that sums over chunks have the same order for any number of threads.
pub const CHUNK: usize = 1 << 14;

/// The numbers of one update, in the order in which a card's kernel reads them.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct Update {
    pub learning_rate: f32,
    pub beta1: f32,
    pub beta2: f32,
    pub epsilon: f32,
    /// p -= weight_decay * learning_rate * p
    pub weight_decay: f32,
    /// 1 / (1 - beta1^step)
    pub correction1: f32,
    /// 1 / sqrt(1 - beta2^step)
    pub correction2: f32,
    /// What gradients are multiplied by first: clipping over divisor.
    pub gradient_scale: f32,
}

/// One chunk of parameters with its gradient, which is cleared, and its moments.
pub struct Adam<'a> {
    pub update: Update,
    pub parameters: &'a mut [f32],
    pub gradient: &'a mut [f32],
    pub first: &'a mut [f32],
    pub second: &'a mut [f32],
}

impl Kernel for Adam<'_> {
    type Output = ();
    #[inline(always)]
    fn run<const ROWS: usize>(self) {
        let u = self.update;
        let keep = 1.0 - u.weight_decay * u.learning_rate;
        let step = u.learning_rate * u.correction1;
        let length = self.parameters.len();
        let parameters = &mut self.parameters[..length];
        let gradients = &mut self.gradient[..length];
        let (firsts, seconds) = (&mut self.first[..length], &mut self.second[..length]);
        for i in 0..length {
            let gradient = gradients[i] * u.gradient_scale;
            gradients[i] = 0.0;
            let first = u.beta1.mul_add(firsts[i], (1.0 - u.beta1) * gradient);
            let second = u
                .beta2
                .mul_add(seconds[i], (1.0 - u.beta2) * gradient * gradient);
            firsts[i] = first;
            seconds[i] = second;
            let denominator = second.sqrt().mul_add(u.correction2, u.epsilon);
            parameters[i] = parameters[i].mul_add(keep, -step * first / denominator);
        }
    }
}

/// Sum of squares in f64.
pub struct SumOfSquares<'a> {
    pub values: &'a [f32],
}

impl Kernel for SumOfSquares<'_> {
    type Output = f64;
    #[inline(always)]
    fn run<const ROWS: usize>(self) -> f64 {
        let mut sums = [0f64; 16];
        let (chunks, rest) = self.values.as_chunks::<16>();
        for chunk in chunks {
            for lane in 0..16 {
                let value = f64::from(chunk[lane]);
                sums[lane] = value.mul_add(value, sums[lane]);
            }
        }
        let rest: f64 = rest.iter().map(|&value| f64::from(value).powi(2)).sum();
        sums.iter().sum::<f64>() + rest
    }
}
