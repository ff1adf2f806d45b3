// Shape, dtype and overlap rules of every op, in the order of ops.def, once for all devices. Index
// values (tokens, labels, rows) live in device memory and are checked by the device.
#include <cmath>
#include <string>

#include "core/error.h"
#include "ops/contract.h"
#include "ops/ops.h"

namespace simper::contracts {

namespace {

constexpr Kind kFloat{DType::f32, DType::bf16};  // "x" of the op table

void positive(const Contract& op, const char* name, int64_t value) {
  op.require(value >= 1, name, " is ", value, ", expected at least 1");
}

void check_matmul(const Contract& op, Tensor c, const Kind& c_kind, Tensor a, Tensor b,
                  MatmulForm form) {
  op.matrix("b", b, kFloat);
  op.matrix("a", a, Kind("b", b));
  op.require(form == MatmulForm::nn || form == MatmulForm::nt || form == MatmulForm::tn, "form is ",
             static_cast<int64_t>(form), ", expected nn (0), nt (1) or tn (2)");
  const bool a_transposed = form == MatmulForm::tn, b_transposed = form == MatmulForm::nt;
  const int64_t M = a.shape[a_transposed ? 1 : 0], K = a.shape[a_transposed ? 0 : 1];
  const int64_t N = b.shape[b_transposed ? 0 : 1], K_of_b = b.shape[b_transposed ? 1 : 0];
  op.require(K == K_of_b, "b has ", K_of_b, b_transposed ? " columns" : " rows", ", expected ", K,
             a_transposed ? " = rows of a" : " = columns of a");
  op.expect("c", c, c_kind, {M, N},
            form == MatmulForm::nn   ? "rows of a, columns of b"
            : form == MatmulForm::nt ? "rows of a, rows of b"
                                     : "columns of a, columns of b");
  op.apart("c", c, "a", a);
  op.apart("c", c, "b", b);
}

void check_rmsnorm_backward(const Contract& op, Tensor dx, Tensor d_weight, Tensor dy, Tensor x,
                            Tensor weight, Tensor rstd) {
  const auto [T, C] = op.matrix("x", x, kFloat);
  op.like("dx", dx, "x", x);
  op.expect("d_weight", d_weight, DType::f32, {C}, "columns of x");
  op.like("dy", dy, "x", x);
  op.expect("weight", weight, Kind("x", x), {C}, "columns of x");
  op.expect("rstd", rstd, DType::f32, {T}, "rows of x");
  op.apart("dx", dx, "x", x);
}

void check_rope(const Contract& op, const char* name, Tensor x, Tensor positions, Tensor table,
                int64_t heads) {
  const auto [T, columns] = op.matrix(name, x, kFloat);
  op.expect("positions", positions, DType::i32, {T}, (std::string("rows of ") + name).c_str());
  const int64_t D = op.matrix("table", table, DType::f32).second;
  op.require(D >= 2 && D % 2 == 0, "table has ", D,
             " columns, expected the head dim, an even number");
  positive(op, "heads", heads);
  op.require(heads <= columns / D, name, " has ", columns,
             " columns, expected at least heads x head dim = ", heads, " x ", D);
}

// Head dim of a row {heads q heads, kv_heads k heads, kv_heads v heads}.
int64_t head_dim(const Contract& op, const char* name, Tensor qkv, int64_t heads,
                 int64_t kv_heads) {
  positive(op, "heads", heads);
  positive(op, "kv_heads", kv_heads);
  op.require(heads % kv_heads == 0, "heads is ", heads,
             ", expected a multiple of kv_heads = ", kv_heads);
  const int64_t columns = qkv.shape[1], all = heads + 2 * kv_heads;
  op.require(columns > 0 && columns % all == 0 && columns / all % 2 == 0, name, " has ", columns,
             " columns, expected a multiple of heads + 2 kv_heads = ", all,
             " with an even head dim");
  return columns / all;
}

// What both directions of the norm of q and k heads share. Returns the head dim.
int64_t check_qk_norm(const Contract& op, Tensor x, Tensor q_weight, Tensor k_weight, Tensor rstd,
                      int64_t heads, int64_t kv_heads) {
  const int64_t T = op.matrix("x", x, kFloat).first;
  const int64_t D = head_dim(op, "x", x, heads, kv_heads);
  op.expect("q_weight", q_weight, Kind("x", x), {D}, "head dim of x");
  op.expect("k_weight", k_weight, Kind("x", x), {D}, "head dim of x");
  op.expect("rstd", rstd, DType::f32, {T, heads + kv_heads}, "rows of x, heads + kv_heads");
  return D;
}

void check_window(const Contract& op, int64_t window) {
  op.require(window >= 0, "window is ", window, ", expected 0 (every key) or more");
}

// The same when only `heads` and the width of the caches, kv_heads · D, are known. Returns heads ·
// D.
int64_t query_columns(const Contract& op, Tensor k_cache, Tensor v_cache, Tensor qkv,
                      int64_t heads) {
  op.matrix("qkv", qkv, kFloat);
  op.matrix("k_cache", k_cache, Kind("qkv", qkv));
  op.like("v_cache", v_cache, "k_cache", k_cache);
  positive(op, "heads", heads);
  const int64_t columns = qkv.shape[1], kv_columns = k_cache.shape[1];
  const int64_t queries = columns - 2 * kv_columns;
  const int64_t D = queries / heads;
  op.require(queries > 0 && queries % heads == 0 && D % 2 == 0, "qkv has ", columns,
             " columns, expected heads x head dim + 2 x columns of k_cache = ", heads,
             " x head dim + 2 x ", kv_columns, " with an even head dim");
  const bool whole = kv_columns > 0 && kv_columns % D == 0 && heads % (kv_columns / D) == 0;
  op.require(whole, "k_cache has ", kv_columns,
             " columns, expected kv_heads x head dim, with head dim ", D,
             " and kv_heads a divisor of heads = ", heads);
  return queries;
}

void check_response_loss(const Contract& op, Tensor mean, Tensor loss, Tensor coefficient,
                         Tensor logp, Tensor responses) {
  op.matrix("responses", responses, DType::i32);
  const int64_t R = responses.shape[0];
  op.expect("responses", responses, DType::i32, {R, 3}, "{begin, end, side} of each response");
  op.expect("mean", mean, DType::f32, {R}, "rows of responses");
  op.expect("loss", loss, DType::f32, {R}, "rows of responses");
  const int64_t N = op.vector("logp", logp, DType::f32);
  op.expect("coefficient", coefficient, DType::f32, {N}, "size of logp");
  op.apart_or_same("coefficient", coefficient, "logp", logp);
  op.apart("mean", mean, "logp", logp);
  op.apart("loss", loss, "logp", logp);
}

void finite(const Contract& op, const char* name, double value) {
  op.require(std::isfinite(value), name, " is ", value, ", expected a finite number");
}

void check_pair_loss(const Contract& op, Tensor mean, Tensor loss, Tensor coefficient, Tensor logp,
                     Tensor responses, Tensor token_weight) {
  check_response_loss(op, mean, loss, coefficient, logp, responses);
  const int64_t R = responses.shape[0];
  op.require(R % 2 == 0, "responses has ", R, " rows, expected an even number: two for each pair");
  op.expect("token_weight", token_weight, DType::f32, {R}, "rows of responses");
  op.apart("mean", mean, "token_weight", token_weight);
  op.apart("loss", loss, "token_weight", token_weight);
  op.apart("coefficient", coefficient, "token_weight", token_weight);
}

}  // namespace

// ---- memory -------------------------------------------------------------------------------------
void fill(Tensor x, float) {
  const Contract op{"fill"};
  op.tensor("x", x, kFloat);
}

void convert(Tensor y, Tensor x) {
  const Contract op{"convert"};
  const Kind stored{DType::f32, DType::bf16, DType::f16};
  op.tensor("x", x, stored);
  op.tensor("y", y, stored);
  Tensor model = x;
  model.dtype = y.dtype;
  op.like("y", y, "x", model);
  op.apart_or_same("y", y, "x", x);
}

// ---- linear layers ------------------------------------------------------------------------------
void matmul(Tensor c, Tensor a, Tensor b, MatmulForm form) {
  const Contract op{"matmul"};
  const Kind kind = a.dtype == DType::f32 ? Kind(DType::f32) : Kind{DType::f32, a.dtype};
  check_matmul(op, c, kind, a, b, form);
}

void matmul_add(Tensor c, Tensor a, Tensor b, MatmulForm form) {
  check_matmul(Contract{"matmul_add"}, c, DType::f32, a, b, form);
}

void add_bias(Tensor x, Tensor bias) {
  const Contract op{"add_bias"};
  const int64_t N = op.matrix("x", x, kFloat).second;
  op.expect("bias", bias, Kind("x", x), {N}, "columns of x");
  op.apart("x", x, "bias", bias);
}

void bias_backward(Tensor d_bias, Tensor dy) {
  const Contract op{"bias_backward"};
  const int64_t N = op.matrix("dy", dy, kFloat).second;
  op.expect("d_bias", d_bias, DType::f32, {N}, "columns of dy");
  op.apart("d_bias", d_bias, "dy", dy);
}

// ---- embedding ----------------------------------------------------------------------------------
void embedding_forward(Tensor y, Tensor tokens, Tensor weight) {
  const Contract op{"embedding_forward"};
  const int64_t C = op.matrix("weight", weight, kFloat).second;
  const int64_t T = op.vector("tokens", tokens, DType::i32);
  op.expect("y", y, Kind("weight", weight), {T, C}, "size of tokens, columns of weight");
  op.apart("y", y, "weight", weight);
}

void embedding_backward(Tensor d_weight, Tensor dy, Tensor unique, Tensor offsets, Tensor rows) {
  const Contract op{"embedding_backward"};
  const auto [T, C] = op.matrix("dy", dy, kFloat);
  const int64_t V = op.matrix("d_weight", d_weight, DType::f32).first;
  op.expect("d_weight", d_weight, DType::f32, {V, C}, "vocabulary, columns of dy");
  const int64_t U = op.vector("unique", unique, DType::i32);
  op.expect("offsets", offsets, DType::i32, {U + 1}, "size of unique + 1");
  const int64_t listed = op.vector("rows", rows, DType::i32);
  op.require(listed <= T, "rows has shape (", listed, "), expected at most ", T, " = rows of dy");
  op.apart("d_weight", d_weight, "dy", dy);
}

// ---- normalization ------------------------------------------------------------------------------
void rmsnorm_forward(Tensor y, Tensor rstd, Tensor x, Tensor weight, float) {
  const Contract op{"rmsnorm_forward"};
  const auto [T, C] = op.matrix("x", x, kFloat);
  op.like("y", y, "x", x);
  op.expect("rstd", rstd, DType::f32, {T}, "rows of x");
  op.expect("weight", weight, Kind("x", x), {C}, "columns of x");
  op.apart_or_same("y", y, "x", x);
}

void add_rmsnorm_forward(Tensor y, Tensor sum, Tensor rstd, Tensor x, Tensor branch, Tensor weight,
                         float) {
  const Contract op{"add_rmsnorm_forward"};
  const auto [T, C] = op.matrix("x", x, kFloat);
  op.like("y", y, "x", x);
  op.like("sum", sum, "x", x);
  op.expect("rstd", rstd, DType::f32, {T}, "rows of x");
  op.like("branch", branch, "x", x);
  op.expect("weight", weight, Kind("x", x), {C}, "columns of x");
  op.apart("y", y, "sum", sum);
  op.apart_or_same("sum", sum, "x", x);
  op.apart_or_same("sum", sum, "branch", branch);
}

void rmsnorm_backward(Tensor dx, Tensor d_weight, Tensor dy, Tensor x, Tensor weight, Tensor rstd) {
  const Contract op{"rmsnorm_backward"};
  check_rmsnorm_backward(op, dx, d_weight, dy, x, weight, rstd);
  op.apart_or_same("dx", dx, "dy", dy);
}

void rmsnorm_backward_add(Tensor dx, Tensor y, Tensor d_weight, Tensor dy, Tensor x, Tensor weight,
                          Tensor rstd) {
  const Contract op{"rmsnorm_backward_add"};
  check_rmsnorm_backward(op, dx, d_weight, dy, x, weight, rstd);
  op.like("y", y, "x", x);
  op.apart("dx", dx, "dy", dy);
  op.apart("y", y, "dx", dx);
  op.apart("y", y, "x", x);
  op.apart_or_same("y", y, "dy", dy);
}

void qk_norm_forward(Tensor y, Tensor rstd, Tensor x, Tensor q_weight, Tensor k_weight,
                     int64_t heads, int64_t kv_heads, float) {
  const Contract op{"qk_norm_forward"};
  check_qk_norm(op, x, q_weight, k_weight, rstd, heads, kv_heads);
  op.like("y", y, "x", x);
  op.apart_or_same("y", y, "x", x);
}

void qk_norm_backward(Tensor dx, Tensor d_q_weight, Tensor d_k_weight, Tensor dy, Tensor x,
                      Tensor q_weight, Tensor k_weight, Tensor rstd, int64_t heads,
                      int64_t kv_heads) {
  const Contract op{"qk_norm_backward"};
  const int64_t D = check_qk_norm(op, x, q_weight, k_weight, rstd, heads, kv_heads);
  op.like("dx", dx, "x", x);
  op.expect("d_q_weight", d_q_weight, DType::f32, {D}, "head dim of x");
  op.expect("d_k_weight", d_k_weight, DType::f32, {D}, "head dim of x");
  op.like("dy", dy, "x", x);
  op.apart("dx", dx, "x", x);
  op.apart_or_same("dx", dx, "dy", dy);
  op.apart("d_q_weight", d_q_weight, "d_k_weight", d_k_weight);
}

// ---- attention ----------------------------------------------------------------------------------
void rope_forward(Tensor x, Tensor positions, Tensor table, int64_t heads) {
  check_rope(Contract{"rope_forward"}, "x", x, positions, table, heads);
}

void rope_backward(Tensor dx, Tensor positions, Tensor table, int64_t heads) {
  check_rope(Contract{"rope_backward"}, "dx", dx, positions, table, heads);
}

void attention_forward(Tensor o, Tensor lse, Tensor qkv, Tensor segments, int64_t heads,
                       int64_t kv_heads, int64_t window) {
  const Contract op{"attention_forward"};
  const int64_t T = op.matrix("qkv", qkv, kFloat).first;
  const int64_t D = head_dim(op, "qkv", qkv, heads, kv_heads);
  check_window(op, window);
  op.expect("o", o, Kind("qkv", qkv), {T, heads * D}, "rows of qkv, heads x head dim");
  op.expect("lse", lse, DType::f32, {T, heads}, "rows of qkv, heads");
  const int64_t S = op.matrix("segments", segments, DType::i32).first;
  op.expect("segments", segments, DType::i32, {S, 4},
            "{start, end, prefix_start, prefix_end} of each segment");
  op.apart("o", o, "qkv", qkv);
}

void attention_backward(Tensor d_qkv, Tensor delta, Tensor d_o, Tensor o, Tensor lse, Tensor qkv,
                        Tensor segments, int64_t heads, int64_t kv_heads, int64_t window) {
  const Contract op{"attention_backward"};
  const int64_t T = op.matrix("qkv", qkv, kFloat).first;
  const int64_t D = head_dim(op, "qkv", qkv, heads, kv_heads);
  check_window(op, window);
  op.like("d_qkv", d_qkv, "qkv", qkv);
  op.expect("delta", delta, DType::f32, {T, heads}, "rows of qkv, heads");
  op.expect("d_o", d_o, Kind("qkv", qkv), {T, heads * D}, "rows of qkv, heads x head dim");
  op.expect("o", o, Kind("qkv", qkv), {T, heads * D}, "rows of qkv, heads x head dim");
  op.expect("lse", lse, DType::f32, {T, heads}, "rows of qkv, heads");
  const int64_t S = op.matrix("segments", segments, DType::i32).first;
  op.expect("segments", segments, DType::i32, {S, 4},
            "{start, end, prefix_start, prefix_end} of each segment");
  op.apart("d_qkv", d_qkv, "qkv", qkv);
  op.apart("d_qkv", d_qkv, "d_o", d_o);
  op.apart("d_qkv", d_qkv, "o", o);
  op.apart("delta", delta, "lse", lse);
}

void kv_cache_write(Tensor k_cache, Tensor v_cache, Tensor qkv, Tensor slots, int64_t heads) {
  const Contract op{"kv_cache_write"};
  query_columns(op, k_cache, v_cache, qkv, heads);
  op.expect("slots", slots, DType::i32, {qkv.shape[0]}, "rows of qkv");
  op.apart("k_cache", k_cache, "v_cache", v_cache);
  op.apart("k_cache", k_cache, "qkv", qkv);
  op.apart("v_cache", v_cache, "qkv", qkv);
}

void attention_decode(Tensor o, Tensor qkv, Tensor k_cache, Tensor v_cache, Tensor ranges,
                      int64_t heads) {
  const Contract op{"attention_decode"};
  const int64_t queries = query_columns(op, k_cache, v_cache, qkv, heads);
  const int64_t T = qkv.shape[0];
  op.expect("o", o, Kind("qkv", qkv), {T, queries}, "rows of qkv, heads x head dim");
  op.expect("ranges", ranges, DType::i32, {T, 2}, "rows of qkv, {first, count}");
  op.apart("o", o, "qkv", qkv);
  op.apart("o", o, "k_cache", k_cache);
  op.apart("o", o, "v_cache", v_cache);
}

// ---- MLP ----------------------------------------------------------------------------------------
void swiglu_forward(Tensor hidden, Tensor gate_up) {
  const Contract op{"swiglu_forward"};
  const auto [T, F] = op.matrix("hidden", hidden, kFloat);
  op.expect("gate_up", gate_up, Kind("hidden", hidden), {T, 2 * F}, "rows, 2 x columns of hidden");
  op.apart("hidden", hidden, "gate_up", gate_up);
}

void swiglu_backward(Tensor d_gate_up, Tensor hidden, Tensor d_hidden, Tensor gate_up) {
  const Contract op{"swiglu_backward"};
  const auto [T, F] = op.matrix("d_hidden", d_hidden, kFloat);
  op.expect("gate_up", gate_up, Kind("d_hidden", d_hidden), {T, 2 * F},
            "rows, 2 x columns of d_hidden");
  op.like("d_gate_up", d_gate_up, "gate_up", gate_up);
  op.like("hidden", hidden, "d_hidden", d_hidden);
  op.apart_or_same("d_gate_up", d_gate_up, "gate_up", gate_up);
  op.apart("d_gate_up", d_gate_up, "d_hidden", d_hidden);
  op.apart("hidden", hidden, "d_gate_up", d_gate_up);
  op.apart("hidden", hidden, "gate_up", gate_up);
  op.apart_or_same("hidden", hidden, "d_hidden", d_hidden);
}

// ---- head ---------------------------------------------------------------------------------------
void gather_rows(Tensor y, Tensor x, Tensor rows) {
  const Contract op{"gather_rows"};
  const int64_t C = op.matrix("x", x, kFloat).second;
  const int64_t N = op.vector("rows", rows, DType::i32);
  op.expect("y", y, Kind("x", x), {N, C}, "size of rows, columns of x");
  op.apart("y", y, "x", x);
}

void scatter_rows(Tensor dx, Tensor dy, Tensor sources) {
  const Contract op{"scatter_rows"};
  const int64_t C = op.matrix("dy", dy, kFloat).second;
  const int64_t T = op.matrix("dx", dx, Kind("dy", dy)).first;
  op.expect("dx", dx, Kind("dy", dy), {T, C}, "any rows, columns of dy");
  op.expect("sources", sources, DType::i32, {T, 2}, "rows of dx, 2 sources");
  op.apart("dx", dx, "dy", dy);
}

void logprob_forward(Tensor logp, Tensor lse, Tensor logits, Tensor labels) {
  const Contract op{"logprob_forward"};
  const int64_t N = op.matrix("logits", logits, DType::f32).first;
  op.expect("logp", logp, DType::f32, {N}, "rows of logits");
  op.expect("lse", lse, DType::f32, {N}, "rows of logits");
  op.expect("labels", labels, DType::i32, {N}, "rows of logits");
}

void logprob_backward(Tensor d_logits, Tensor logits, Tensor lse, Tensor labels,
                      Tensor coefficient) {
  const Contract op{"logprob_backward"};
  const auto [N, V] = op.matrix("logits", logits, DType::f32);
  op.expect("d_logits", d_logits, kFloat, {N, V}, "shape of logits");
  op.expect("lse", lse, DType::f32, {N}, "rows of logits");
  op.expect("labels", labels, DType::i32, {N}, "rows of logits");
  op.expect("coefficient", coefficient, DType::f32, {N}, "rows of logits");
  const int64_t bytes = d_logits.row_stride * size_of(d_logits.dtype);
  const int64_t logits_bytes = logits.row_stride * size_of(logits.dtype);
  if (d_logits.data == logits.data) {
    op.require(N <= 1 || bytes == logits_bytes, "d_logits lies over logits with ", bytes,
               " bytes per row, expected ", logits_bytes, " = bytes per row of logits");
  } else {
    op.apart("d_logits", d_logits, "logits", logits);
  }
}

void simper_loss(Tensor mean, Tensor loss, Tensor coefficient, Tensor logp, Tensor responses,
                 float) {
  check_response_loss(Contract{"simper_loss"}, mean, loss, coefficient, logp, responses);
}

void sft_loss(Tensor mean, Tensor loss, Tensor coefficient, Tensor logp, Tensor responses, float) {
  check_response_loss(Contract{"sft_loss"}, mean, loss, coefficient, logp, responses);
}

void simper_sft_loss(Tensor mean, Tensor loss, Tensor coefficient, Tensor logp, Tensor responses,
                     Tensor token_weight, double) {
  check_pair_loss(Contract{"simper_sft_loss"}, mean, loss, coefficient, logp, responses,
                  token_weight);
}

void sigmoid_loss(Tensor mean, Tensor loss, Tensor coefficient, Tensor logp, Tensor responses,
                  Tensor token_weight, double, double beta, double gamma_beta_ratio,
                  double label_smoothing) {
  const Contract op{"sigmoid_loss"};
  check_pair_loss(op, mean, loss, coefficient, logp, responses, token_weight);
  finite(op, "beta", beta);
  finite(op, "gamma_beta_ratio", gamma_beta_ratio);
  op.require(0 <= label_smoothing && label_smoothing <= 1, "label_smoothing is ", label_smoothing,
             ", expected 0 to 1");
}

void hinge_loss(Tensor mean, Tensor loss, Tensor coefficient, Tensor logp, Tensor responses,
                Tensor token_weight, double, double beta, double gamma_beta_ratio) {
  const Contract op{"hinge_loss"};
  check_pair_loss(op, mean, loss, coefficient, logp, responses, token_weight);
  finite(op, "beta", beta);
  finite(op, "gamma_beta_ratio", gamma_beta_ratio);
}

// ---- optimizer ----------------------------------------------------------------------------------
void sum_squares(Tensor partials, Tensor x) {
  const Contract op{"sum_squares"};
  const int64_t B = op.vector("partials", partials, DType::f32);
  op.require(B >= 1, "partials has shape (0), expected at least 1 block");
  op.vector("x", x, DType::f32);
  op.apart("partials", partials, "x", x);
}

void clip_factor(Tensor out, Tensor partials, float max_norm) {
  const Contract op{"clip_factor"};
  op.expect("out", out, DType::f32, {2}, "{norm, factor}");
  op.vector("partials", partials, DType::f32);
  op.require(max_norm >= 0, "max_norm is ", max_norm, ", expected 0 (never clips) or more");
}

void adamw(Tensor weight, Tensor master, Tensor m, Tensor v, Tensor grad, Tensor clip, double lr,
           double beta1, double beta2, double eps, double weight_decay, int64_t step) {
  const Contract op{"adamw"};
  const int64_t n = op.vector("weight", weight, kFloat);
  const struct {
    const char* name;
    const Tensor& tensor;
  } states[] = {{"master", master}, {"m", m}, {"v", v}, {"grad", grad}};
  for (const auto& state : states) {
    op.expect(state.name, state.tensor, DType::f32, {n}, "size of weight");
  }
  op.expect("clip", clip, DType::f32, {2}, "{norm, factor}");
  op.apart_or_same("weight", weight, "master", master);
  for (int i = 0; i < 4; ++i) {
    if (i > 0) op.apart("weight", weight, states[i].name, states[i].tensor);
    for (int j = 0; j < i; ++j) {
      op.apart(states[i].name, states[i].tensor, states[j].name, states[j].tensor);
    }
  }
  op.require(std::isfinite(lr), "lr is ", lr, ", expected a finite number");
  op.require(beta1 >= 0 && beta1 < 1, "beta1 is ", beta1, ", expected 0 <= beta1 < 1");
  op.require(beta2 >= 0 && beta2 < 1, "beta2 is ", beta2, ", expected 0 <= beta2 < 1");
  op.require(eps >= 0, "eps is ", eps, ", expected 0 or more");
  op.require(std::isfinite(weight_decay), "weight_decay is ", weight_decay,
             ", expected a finite number");
  positive(op, "step", step);
}

}  // namespace simper::contracts
