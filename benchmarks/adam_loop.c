// Adam on the counterexample for many cells, the way a C programmer would write it: a block of cells
// goes through all steps before the next, with its state in registers and the L1 cache. The same
// arithmetic as the library: float32, a square root and a division, no fast-math. Numbers below
// 1e-38 are flushed to 0, as in XLA: close to the minimiser they would cost hundreds of cycles.
#include <math.h>
#ifdef __SSE__
#include <immintrin.h>
#endif

#define WIDTH 64

// cells is a multiple of WIDTH; p = 1 - beta1, q = 1 - beta2; gap receives |x - minimiser|.
void adam_loop(long cells, long steps, const float *slope, const float *step_size, const float *p,
               const float *q, float x0, float minimiser, float *gap) {
#ifdef __SSE__
  unsigned int mode = _mm_getcsr();
  _mm_setcsr(mode | 0x8040);
#endif
  for (long start = 0; start < cells; start += WIDTH) {
    float x[WIDTH], m[WIDTH], v[WIDTH], pb[WIDTH], qb[WIDTH];
    for (int j = 0; j < WIDTH; j++) {
      x[j] = x0, m[j] = 0, v[j] = 0;
      pb[j] = p[start + j], qb[j] = q[start + j];
    }
    for (long k = 0; k < steps; k++) {
      float s = slope[k], eta = step_size[k];
      for (int j = 0; j < WIDTH; j++) {
        float u = x[j] + 2.0f;
        float g = s * (u < 1.0f ? u : 1.0f);
        m[j] = m[j] - pb[j] * m[j] + pb[j] * g;
        v[j] = v[j] - qb[j] * v[j] + qb[j] * (g * g);
        float root = sqrtf(v[j]);
        x[j] = x[j] - eta * (root > 0.0f ? m[j] / root : 0.0f);
      }
    }
    for (int j = 0; j < WIDTH; j++) gap[start + j] = fabsf(x[j] - minimiser);
  }
#ifdef __SSE__
  _mm_setcsr(mode);
#endif
}

// Adam on quadratics in D coordinates: the gradient of component i is H_i (x - b_i). The coordinates
// of a block lie one after another. hessian is [n][D][D], centre is [n][D], component and step_size
// have an entry for each step; x0 is the start of every coordinate, and norm receives |x|.
#ifndef D
#define D 2
#endif
void adam_quadratics(long cells, long steps, const int *component, const float *hessian,
                     const float *centre, const float *step_size, const float *p, const float *q,
                     float x0, float *norm) {
#ifdef __SSE__
  unsigned int mode = _mm_getcsr();
  _mm_setcsr(mode | 0x8040);
#endif
  for (long start = 0; start < cells; start += WIDTH) {
    float x[D][WIDTH], m[D][WIDTH], v[D][WIDTH], u[D][WIDTH], pb[WIDTH], qb[WIDTH];
    for (int j = 0; j < WIDTH; j++) {
      for (int a = 0; a < D; a++) x[a][j] = x0, m[a][j] = 0, v[a][j] = 0;
      pb[j] = p[start + j], qb[j] = q[start + j];
    }
    for (long k = 0; k < steps; k++) {
      const float *h = hessian + (long)component[k] * D * D, *b = centre + (long)component[k] * D;
      float eta = step_size[k];
      for (int a = 0; a < D; a++)
        for (int j = 0; j < WIDTH; j++) u[a][j] = x[a][j] - b[a];
      for (int a = 0; a < D; a++)
        for (int j = 0; j < WIDTH; j++) {
          float g = 0;
          for (int c = 0; c < D; c++) g += h[a * D + c] * u[c][j];
          m[a][j] = m[a][j] - pb[j] * m[a][j] + pb[j] * g;
          v[a][j] = v[a][j] - qb[j] * v[a][j] + qb[j] * (g * g);
          float root = sqrtf(v[a][j]);
          x[a][j] = x[a][j] - eta * (root > 0.0f ? m[a][j] / root : 0.0f);
        }
    }
    for (int j = 0; j < WIDTH; j++) {
      float sum = 0;
      for (int a = 0; a < D; a++) sum += x[a][j] * x[a][j];
      norm[start + j] = sqrtf(sum);
    }
  }
#ifdef __SSE__
  _mm_setcsr(mode);
#endif
}
