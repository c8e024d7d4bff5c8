//! The Gaussian error linear unit x * Phi(x) (Hendrycks and Gimpel 2016), exact rather than by tanh.

use super::lanes::{Kernel, exp};

/// Value and derivative of GELU at `x`.
///
/// Phi(-z sqrt 2) = erfc(z) / 2 and erfc(z) = exp(-z^2) erfcx(z); for z >= 0, erfcx is a polynomial of degree 9 in
/// t = 1 / (1 + z / 2), fitted by us in the relative uniform norm on 0 <= z <= 10 (error 3.3e-8 in exact arithmetic,
/// 2.7e-7 in f32). The derivative Phi(x) + x phi(x) shares the exponential.
#[inline(always)]
pub fn gelu_with_derivative(x: f32) -> (f32, f32) {
    const ERFCX: [f32; 10] = [
        -6.011276e-06,
        0.28222138,
        0.28109843,
        0.24979346,
        0.18125007,
        0.017077273,
        0.22119151,
        -0.4414781,
        0.2639033,
        -0.055051334,
    ];
    // 1 / sqrt(2 pi)
    const DENSITY: f32 = 0.398_942_3;
    let z = x.abs() * std::f32::consts::FRAC_1_SQRT_2;
    let t = 1.0 / z.mul_add(0.5, 1.0);
    let mut erfcx = ERFCX[9];
    for coefficient in ERFCX[..9].iter().rev() {
        erfcx = erfcx.mul_add(t, *coefficient);
    }
    let bell = exp(-0.5 * x * x);
    let tail = 0.5 * bell * erfcx;
    let phi = if x < 0.0 { tail } else { 1.0 - tail };
    (x * phi, x.mul_add(DENSITY * bell, phi))
}

/// values[t, f] = gelu(values[t, f] + bias[f]) and, where a backward will follow, slopes[t, f] its derivative.
pub struct Gelu<'a> {
    pub values: &'a mut [f32],
    pub slopes: Option<&'a mut [f32]>,
    pub bias: &'a [f32],
}

impl Kernel for Gelu<'_> {
    type Output = ();
    #[inline(always)]
    fn run<const ROWS: usize>(self) {
        let width = self.bias.len();
        let lines = self.values.chunks_exact_mut(width);
        let Some(slopes) = self.slopes else {
            for values in lines {
                for (value, bias) in values.iter_mut().zip(self.bias) {
                    *value = gelu_with_derivative(*value + *bias).0;
                }
            }
            return;
        };
        for (values, slopes) in lines.zip(slopes.chunks_exact_mut(width)) {
            for ((value, slope), bias) in values.iter_mut().zip(slopes).zip(self.bias) {
                (*value, *slope) = gelu_with_derivative(*value + *bias);
            }
        }
    }
}

/// gradient[t, f] *= slopes[t, f]; bias_gradient[f] = sum over t of the result.
pub struct GeluBackward<'a> {
    pub gradient: &'a mut [f32],
    pub slopes: &'a [f32],
    pub bias_gradient: &'a mut [f32],
}

impl Kernel for GeluBackward<'_> {
    type Output = ();
    #[inline(always)]
    fn run<const ROWS: usize>(self) {
        let width = self.bias_gradient.len();
        self.bias_gradient.fill(0.0);
        for (gradient, slopes) in self
            .gradient
            .chunks_exact_mut(width)
            .zip(self.slopes.chunks_exact(width))
        {
            for ((gradient, slope), bias) in gradient
                .iter_mut()
                .zip(slopes)
                .zip(self.bias_gradient.iter_mut())
            {
                *gradient *= slope;
                *bias += *gradient;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::lanes::vectorised;

    /// Values from Python: `n = lambda x: 0.5 * math.erfc(-x / math.sqrt(2))`; `x * n(x)` and
    /// `n(x) + x * math.exp(-x * x / 2) / math.sqrt(2 * math.pi)`.
    #[test]
    fn value_and_derivative_are_accurate() {
        for (x, value, slope) in [
            (-6.0, -5.919525870226207e-09, -3.5468709453902015e-08),
            (-3.0, -0.004049694094890287, -0.011945647204183927),
            (-1.5, -0.10021080190328713, -0.12746919222997954),
            (-0.5, -0.15426876936299344, 0.13250487534383712),
            (-0.001953125, -0.0009750406569413722, 0.49844163369874794),
            (0.0, 0.0, 0.5),
            (0.25, 0.14967658142073093, 0.695373354883636),
            (0.75, 0.5800294857173488, 0.9992257217392351),
            (1.0, 0.8413447460685429, 1.0833154705876864),
            (2.5, 2.4844758366855597, 1.037611085908145),
            (5.0, 4.99999856674214, 1.0000071469460017),
            (12.0, 12.0, 1.0),
        ] {
            let (got, got_slope) = gelu_with_derivative(x);
            assert!(
                (f64::from(got) - value).abs() <= 5e-7 * value.abs() + 1e-9,
                "{x}: {got} {value}"
            );
            assert!(
                (f64::from(got_slope) - slope).abs() <= 5e-7 * slope.abs() + 1e-7,
                "{x}: {got_slope} {slope}"
            );
        }
        assert!(gelu_with_derivative(f32::NAN).0.is_nan());
    }

    #[test]
    fn every_instruction_set_gives_the_same_bits() {
        let inputs: Vec<f32> = (0..970).map(|i| i as f32 * 0.02 - 9.7).collect();
        let run = |kernel: fn(Gelu)| {
            let (mut values, mut slopes) = (inputs.clone(), vec![0.0; inputs.len()]);
            kernel(Gelu {
                values: &mut values,
                slopes: Some(&mut slopes),
                bias: &[0.25, -0.5],
            });
            (values, slopes)
        };
        let best = run(|kernel| vectorised(kernel));
        assert_eq!(best, run(|kernel| kernel.run::<2>()));
        let mut alone = inputs.clone();
        vectorised(Gelu {
            values: &mut alone,
            slopes: None,
            bias: &[0.25, -0.5],
        });
        assert_eq!(best.0, alone);
    }
}
