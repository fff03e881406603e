#include "kernels/cuda/common.cuh"

struct AdamWFactors {
    float decay;               /* 1 - lr * wd */
    float step_size;           /* lr / (1 - b1^t) */
    float inverse_correction2; /* 1 / (1 - b2^t) */
    float beta1, beta2, one_minus_beta1, one_minus_beta2, epsilon, gradient_scale;
};

__global__ void adamw_kernel(float *__restrict__ parameter, float *__restrict__ exp_avg, float *__restrict__ exp_avg_sq,
                             __nv_bfloat16 *__restrict__ value, const float *__restrict__ gradient, AdamWFactors f,
                             int64_t elements) {
    const int64_t i = blockIdx.x * (int64_t)blockDim.x + threadIdx.x;
    if (i >= elements) return;
    const float g = f.gradient_scale * gradient[i];
    const float m = f.beta1 * exp_avg[i] + f.one_minus_beta1 * g;
    const float v = f.beta2 * exp_avg_sq[i] + f.one_minus_beta2 * g * g;
    const float p = parameter[i] * f.decay - f.step_size * m / (sqrtf(v * f.inverse_correction2) + f.epsilon);
    exp_avg[i] = m;
    exp_avg_sq[i] = v;
    parameter[i] = p;
    if (value) value[i] = __float2bfloat16_rn(p);
}

extern "C" Status cuda_adamw(Device *device, Tensor parameter, Tensor exp_avg, Tensor exp_avg_sq, Tensor value, Tensor gradient,
                             AdamWSettings settings) {
    CudaContext *context = cuda_context(device);
    const int64_t elements = tensor_elements(parameter);
    if (elements == 0) return STATUS_OK;
    /* In double on the host: 1 - b2^t loses half its digits in float at t = 1. */
    const double rate = settings.learning_rate, update = (double)settings.update;
    AdamWFactors factors;
    factors.decay = (float)(1.0 - rate * settings.weight_decay);
    factors.step_size = (float)(rate / (1.0 - pow(settings.beta1, update)));
    factors.inverse_correction2 = (float)(1.0 / (1.0 - pow(settings.beta2, update)));
    factors.beta1 = settings.beta1;
    factors.beta2 = settings.beta2;
    factors.one_minus_beta1 = (float)(1.0 - settings.beta1);
    factors.one_minus_beta2 = (float)(1.0 - settings.beta2);
    factors.epsilon = settings.epsilon;
    factors.gradient_scale = settings.gradient_scale;
    unsigned grid;
    TRY(linear_grid(__func__, elements, 256, &grid));
    ADAMEM_LAUNCH(adamw_kernel, grid, 256, 0, context->stream, (float *)parameter.data, (float *)exp_avg.data,
                  (float *)exp_avg_sq.data, (__nv_bfloat16 *)value.data, (const float *)gradient.data, factors, elements);
    return STATUS_OK;
}
