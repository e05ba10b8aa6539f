// Logits -> probabilities, under a class prior. Pure.

/** Probabilities of logits; -Infinity has probability 0. */
export function softmax(logits) {
  const most = logits.reduce((a, b) => Math.max(a, b), -Infinity);
  const exps = Array.from(logits, (value) => Math.exp(value - most));
  const sum = exps.reduce((a, b) => a + b, 0);
  return exps.map((value) => value / sum);
}

/**
 * Fused logits under the training prior to the power `strength`: 0 = balanced, as they are; 1 = training.
 *
 * The logits are those of equally likely classes, so adding log prior is Bayes' rule (osdtw_models/prior.py).
 */
export function underPrior(logits, counts, strength) {
  if (!counts || strength === 0) return Array.from(logits);
  const most = Math.max(...counts);
  return Array.from(logits, (value, c) => value + strength * Math.log(counts[c] / most));
}

/** Indices of the k largest values, best first; of equal ones the earlier. */
export function best(values, k) {
  return values.map((_, i) => i).sort((a, b) => values[b] - values[a] || a - b).slice(0, k);
}
