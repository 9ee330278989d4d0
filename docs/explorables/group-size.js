// How much a prompt counts when GRPO divides by the standard deviation of its group.
"use strict";
{
  // P(m correct responses of K), from the ratio of neighbouring terms: no factorials
  const binomial = (size, p) => {
    const terms = [(1 - p) ** size];
    for (let m = 1; m <= size; m++) terms.push(((terms[m - 1] * (size - m + 1)) / m) * (p / (1 - p)));
    return terms;
  };

  // w(p, K) = E[sqrt(f (1 - f))] / (p (1 - p)) with f = m / K
  const weight = (p, size) => {
    const deviation = (m) => Math.sqrt((m / size) * (1 - m / size));
    return binomial(size, p).reduce((sum, term, m) => sum + term * deviation(m), 0) / (p * (1 - p));
  };
  const silent = (p, size) => p ** size + (1 - p) ** size;
  const grid = Array.from({ length: 99 }, (_, i) => (i + 1) / 100);

  explorable({
    name: "group-size",
    controls: [
      { name: "p", label: "success rate p of the prompt", min: 0.01, max: 0.99, step: 0.01, value: 0.02 },
      { name: "group_size", label: "responses per prompt K", min: 2, max: 64, step: 1, value: 8 },
    ],
    compute: ({ p, group_size: size }) => ({
      weight: weight(p, size),
      silent: silent(p, size),
      weights: grid.map((q) => weight(q, size)),
      silents: grid.map((q) => silent(q, size)),
    }),
    describe: ({ weight: w, silent: s }, { p, group_size: size }) =>
      `With K = ${size}, a prompt with success rate ${p} has the weight ${w.toFixed(2)}. ` +
      `Without the division, its weight would be ${(1 - 1 / size).toFixed(2)}. ` +
      `${(100 * s).toFixed(0)} % of its groups contain no signal.`,
    draw(pen, numbers, { p, group_size: size }) {
      const { colour, width, height } = pen;
      const top = Math.max(4, Math.ceil(Math.max(...numbers.weights)));
      const xTicks = [0, 0.25, 0.5, 0.75, 1].map((v) => [v, String(v)]);
      const yTicks = Array.from({ length: 5 }, (_, i) => [(i * top) / 4, ((i * top) / 4).toFixed(1)]);
      const to = pen.axes(
        [38, 30, width - 46, height - 44],
        { min: 0, max: 1, ticks: xTicks, label: "success rate p" },
        { min: 0, max: top, ticks: yTicks, label: "weight w(p, K)" },
      );
      pen.text("share without signal", width - 46, 18, { align: "right", fill: colour.vermillion });
      for (const share of [0, 0.5, 1]) {
        pen.text(`${100 * share} %`, width - 4, to.y(share * top), { align: "right", fill: colour.vermillion });
      }
      pen.line(grid.map((q, i) => [to.x(q), to.y(numbers.weights[i])]), colour.blue);
      pen.line(grid.map((q, i) => [to.x(q), to.y(numbers.silents[i] * top)]), colour.vermillion, { dash: [6, 4] });
      pen.line([[to.x(0), to.y(1 - 1 / size)], [to.x(1), to.y(1 - 1 / size)]], colour.ink, { dash: [2, 3], thickness: 1 });
      pen.dot(to.x(p), to.y(numbers.weight), colour.blue);
    },
  });
}
