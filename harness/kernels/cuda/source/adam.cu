// Adam with decoupled weight decay, and the norm of a gradient; as kernels/adam.rs.

struct Update {
    float learning_rate, beta1, beta2, epsilon, weight_decay, correction1, correction2, gradient_scale;
};

// Four values for each thread; `rounded` (may be null) receives the new parameters in bf16.
__device__ void adam(Update u, float* parameters, float* gradients, float* firsts, float* seconds, bf16* rounded, u64 count) {
    u64 place = 4 * ((u64)blockIdx.x * blockDim.x + threadIdx.x);
    if (place >= count) return;
    float keep = 1.0f - u.weight_decay * u.learning_rate;
    float step = u.learning_rate * u.correction1;
    Four p = load_four(parameters + place), g = load_four(gradients + place);
    Four m = load_four(firsts + place), v = load_four(seconds + place);
    for (int i = 0; i < 4; i++) {
        float gradient = g.v[i] * u.gradient_scale;
        m.v[i] = fmaf(u.beta1, m.v[i], (1.0f - u.beta1) * gradient);
        v.v[i] = fmaf(u.beta2, v.v[i], (1.0f - u.beta2) * gradient * gradient);
        float denominator = fmaf(sqrtf(v.v[i]), u.correction2, u.epsilon);
        p.v[i] = fmaf(p.v[i], keep, -step * m.v[i] / denominator);
        g.v[i] = 0.0f;
    }
    store_four(parameters + place, p);
    store_four(gradients + place, g);
    store_four(firsts + place, m);
    store_four(seconds + place, v);
    if (rounded) store_four(rounded + place, p);
}

EXPORT(adam_f32,
       (Update update, float* parameters, float* gradients, float* firsts, float* seconds, bf16* rounded, u64 count),
       adam(update, parameters, gradients, firsts, seconds, rounded, count))

// A block of 256 threads for each 16384 values: sums[block] = sum of squares.
__device__ void sum_of_squares(const float* values, u64 count, double* sums) {
    __shared__ double parts[256];
    u64 start = (u64)blockIdx.x * 16384, end = start + 16384 < count ? start + 16384 : count;
    double sum = 0.0;
    for (u64 place = start + threadIdx.x; place < end; place += 256) {
        double value = values[place];
        sum += value * value;
    }
    parts[threadIdx.x] = sum;
    __syncthreads();
    for (int half = 128; half > 0; half >>= 1) {
        if (threadIdx.x < half) parts[threadIdx.x] += parts[threadIdx.x + half];
        __syncthreads();
    }
    if (threadIdx.x == 0) sums[blockIdx.x] = parts[0];
}

EXPORT(sum_of_squares_f32, (const float* values, u64 count, double* sums), sum_of_squares(values, count, sums))
