// The squared error of GAE's advantages against lambda, for a critic that is right or wrong.
"use strict";
{
  const lams = Array.from({ length: 101 }, (_, i) => i / 100);
  const sum = (terms) => terms.reduce((total, term) => total + term, 0);
  const weighted = (weights, terms) => sum(weights.map((weight, i) => weight * terms[i]));

  // x of (I - factor moves) x = right; the diagonal dominates, so no rows are exchanged
  const solve = (moves, factor, right) => {
    const size = right.length;
    const rows = moves.map((row, s) => [...row.map((move, t) => (s === t) - factor * move), right[s]]);
    for (let s = 0; s < size; s++) {
      for (let t = 0; t < size; t++) {
        if (t === s) continue;
        const share = rows[t][s] / rows[s][s];
        rows[t] = rows[t].map((entry, k) => entry - share * rows[s][k]);
      }
    }
    return rows.map((row, s) => row[size] / row[s]);
  };

  // The squared bias and the variance of one estimate, as means over the pairs of state and action.
  const parts = (lam, critic, { discount, outcomes, policy, advantages, pairs }) => {
    const decay = discount * lam;
    const table = (entry) => outcomes.map((actions, s) => actions.map((list) => sum(list.map(
      ([probability, next, reward, terminated]) => {
        const delta = reward + (terminated ? 0 : discount * critic[next]) - critic[s];
        return probability * entry(delta, next, terminated ? 0 : 1);
      },
    ))));
    const byState = (entries) => entries.map((row, s) => weighted(policy[s], row));
    const moves = outcomes.map((_, t) => byState(table((delta, next, continues) => (next === t) * continues)));
    const chain = moves.map((_, s) => moves.map((column) => column[s]));
    // the mean: g(s, a) = E[delta + decay g(s')]
    const meanDelta = table((delta) => delta);
    const stateMean = solve(chain, decay, byState(meanDelta));
    const mean = table((delta, next, continues) => delta + continues * decay * stateMean[next]);
    // the second moment: E[delta^2 + 2 decay delta g(s')] + decay^2 E[second moment of s']
    const now = table((delta, next, continues) => delta * (delta + 2 * continues * decay * stateMean[next]));
    const stateSquare = solve(chain, decay ** 2, byState(now));
    const later = table((delta, next, continues) => continues * decay ** 2 * stateSquare[next]);
    const average = (entry) => sum(pairs.map((row, s) => weighted(row, row.map((_, a) => entry(s, a)))));
    return {
      bias: average((s, a) => (mean[s][a] - stateMean[s] - advantages[s][a]) ** 2),
      variance: average((s, a) => now[s][a] + later[s][a] - mean[s][a] ** 2),
    };
  };

  // a squared error in words, such as "2.4 thousandths"
  const amount = (number) => {
    if (number < 1e-9) return "0";
    const [unit, words] = number < 1e-5 ? [1e-6, "millionths"] : [1e-3, "thousandths"];
    return `${Number((number / unit).toPrecision(2))} ${words}`;
  };
  const isWide = (width) => width > 620;

  explorable({
    name: "gae-lambda",
    controls: [
      { name: "wrong", label: "largest error of the critic", min: 0, max: 0.4, step: 0.01, value: 0.13 },
      {
        name: "episodes", label: "number of episodes n",
        min: 0, max: 3, step: 0.05, value: 1.2, logarithmic: true, whole: true,
      },
      { name: "lam", label: "λ", min: 0, max: 1, step: 0.01, value: 0.95 },
    ],
    compute({ wrong, episodes, lam }, data) {
      const critic = data.values.map((value, s) => value + wrong * data.error[s]);
      const curve = lams.map((each) => parts(each, critic, data));
      const biases = curve.map(({ bias }) => bias);
      const variances = curve.map(({ variance }) => variance / episodes);
      const errors = lams.map((_, i) => biases[i] + variances[i]);
      const smallest = Math.min(...errors);
      const { bias, variance } = parts(lam, critic, data);
      const best = lams[errors.indexOf(smallest)];
      return {
        bias, variance: variance / episodes, biases, variances, errors, best, smallest,
        critic, values: data.values,
      };
    },
    describe: ({ bias, variance, best, smallest }, { wrong, episodes, lam }) =>
      `${wrong > 0 ? `The values of the critic are wrong by up to ${wrong}` : "The critic is right"}. ` +
      `With λ = ${lam} and n = ${episodes}, the squared bias is ${amount(bias)}, and the variance divided by n is ` +
      `${amount(variance)}. The green dot shows their sum, ${amount(bias + variance)}. The purple diamond shows the ` +
      `smallest sum, ${amount(smallest)}, at λ = ${best}.`,
    height: (width) => (isWide(width) ? 380 : 580),
    draw(pen, numbers, { lam }) {
      const { colour, width, height, context } = pen;
      const wide = isWide(width);
      const below = pen.legend([
        ["squared bias", colour.vermillion, [7, 4]],
        ["variance / n", colour.blue, [2, 3]],
        ["their sum", colour.ink],
      ]);
      const top = 1.05 * Math.max(...numbers.errors);
      const to = pen.axes(
        [44, below + 30, wide ? 0.66 * width : width - 8, wide ? height - 44 : 300],
        { min: 0, max: 1, ticks: pen.ticks(0, 1, 5), label: "λ" },
        {
          min: 0, max: top, label: "squared error in thousandths",
          ticks: pen.ticks(0, 1000 * top, 5).map(([value, words]) => [value / 1000, words]),
        },
      );
      const curve = (entries, stroke, style) =>
        pen.line(lams.map((each, i) => [to.x(each), to.y(entries[i])]), stroke, style);
      curve(numbers.biases, colour.vermillion, { dash: [7, 4] });
      curve(numbers.variances, colour.blue, { dash: [2, 3], thickness: 3 });
      curve(numbers.errors, colour.ink);
      const [x, y] = [to.x(numbers.best), to.y(numbers.smallest)];
      context.fillStyle = colour.purple;
      context.fill(new Path2D(`M ${x} ${y - 8} l 8 8 l -8 8 l -8 -8 z`));
      pen.dot(to.x(lam), to.y(numbers.bias + numbers.variance), colour.green);
      // the second panel: the critic against the true values
      const [left, start] = wide ? [0.66 * width + 70, 10] : [44, 352];
      const end = pen.legend([["true value", colour.sky], ["critic", colour.orange, [2, 4]]], start, left);
      const states = pen.axes(
        [left, wide ? below + 30 : end + 20, width - 8, height - 44],
        { min: 0, max: 4, ticks: pen.ticks(0, 4, 4), label: "state" },
        { min: -0.5, max: 1.25, ticks: pen.ticks(-0.5, 1.25, 4), label: "value of the state" },
      );
      const points = (entries) => entries.map((value, s) => [states.x(s), states.y(value)]);
      pen.line(points(numbers.values), colour.sky);
      pen.line(points(numbers.critic), colour.orange, { dash: [2, 4] });
      for (const [x, y] of points(numbers.critic)) pen.dot(x, y, colour.orange, 5);
    },
  });
}
