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
    height: (width) => Math.max(300, Math.min(0.62 * width, 380)),
    draw(pen, numbers, { p, group_size: size }) {
      const { colour, width, height } = pen;
      const below = pen.legend([
        ["weight w(p, K)", colour.blue],
        ["weight without the division", colour.ink, [2, 3]],
        ["share of groups without signal", colour.vermillion, [6, 4]],
      ]);
      const top = Math.max(4, 1.05 * Math.max(...numbers.weights));
      const to = pen.axes(
        [38, below + 20, width - 46, height - 44],
        { min: 0, max: 1, ticks: pen.ticks(0, 1, 5), label: "success rate p" },
        { min: 0, max: top, ticks: pen.ticks(0, top, 5), label: "weight" },
      );
      pen.text("share", width - 4, below + 8, { align: "right", fill: colour.vermillion });
      for (const share of [0, 0.5, 1]) {
        pen.text(`${100 * share} %`, width - 4, to.y(share * top), { align: "right", fill: colour.vermillion });
      }
      const curve = (entries, stroke, style) =>
        pen.line(grid.map((q, i) => [to.x(q), to.y(entries[i])]), stroke, style);
      const plain = 1 - 1 / size;
      pen.line([[to.x(0), to.y(plain)], [to.x(1), to.y(plain)]], colour.ink, { dash: [2, 3] });
      curve(numbers.silents.map((share) => share * top), colour.vermillion, { dash: [6, 4] });
      curve(numbers.weights, colour.blue);
      pen.dot(to.x(p), to.y(numbers.silent * top), colour.vermillion, 5);
      pen.dot(to.x(p), to.y(numbers.weight), colour.blue);
    },
  });
}
