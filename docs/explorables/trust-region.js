// One step of TRPO and the epochs of PPO, on the map of a policy with two parameters.
"use strict";
{
  const dot = (a, b) => a.reduce((total, entry, i) => total + entry * b[i], 0);
  const along = (start, length, direction) => start.map((entry, i) => entry + length * direction[i]);
  const logProbabilities = ([first, second]) => {
    const total = Math.log(Math.exp(first) + Math.exp(second) + 1);
    return [first - total, second - total, -total];
  };
  const mean = (theta, advantages) => dot(logProbabilities(theta).map(Math.exp), advantages);
  const kl = (old, theta) => dot(old.map(Math.exp), along(old, -1, logProbabilities(theta)));

  const conjugateGradient = (product, right, iterations) => {
    let [x, residual, direction, squared] = [[0, 0], right, right, dot(right, right)];
    for (let i = 0; i < iterations && squared > 1e-20 * dot(right, right); i++) {
      const image = product(direction);
      const length = squared / dot(direction, image);
      x = along(x, length, direction);
      residual = along(residual, -length, image);
      direction = along(residual, dot(residual, residual) / squared, direction);
      squared = dot(residual, residual);
    }
    return x;
  };

  // The length at which KL(old || new) is max_kl: Newton's method on a convex function.
  const radius = (old, start, direction, length, maxKL) => {
    for (let i = 0; i < 12; i++) {
      const theta = along(start, length, direction);
      const change = along(logProbabilities(theta).map(Math.exp), -1, old.map(Math.exp));
      length -= (kl(old, theta) - maxKL) / dot(direction, change);
    }
    return length;
  };

  const compute = ({ max_kl: maxKL, damping, epsilon, epochs, ...values }, { start, angles, iterations, shrink, most, rate }) => {
    const rewards = [values.reward1, values.reward2, values.reward3];
    const old = logProbabilities(start);
    const weight = old.map(Math.exp);
    const advantages = rewards.map((reward) => dot(weight, rewards.map((other) => reward - other)));
    const gradient = [0, 1].map((k) => weight[k] * (advantages[k] - dot(weight, advantages)));
    const fisher = (v) => [0, 1].map((k) => weight[k] * (v[k] - weight[0] * v[0] - weight[1] * v[1]));
    const gain = (theta) => mean(theta, advantages) - dot(weight, advantages);

    // TRPO: the natural direction, the full step, and the line search
    const direction = conjugateGradient((v) => along(fisher(v), damping, v), gradient, iterations);
    const curvature = dot(direction, fisher(direction));
    const step = direction.map((entry) => (curvature > 0 ? entry * Math.sqrt((2 * maxKL) / curvature) : 0));
    const tries = [];
    let fraction = 0;
    while (tries.length < most && fraction === 0) {
      const part = shrink ** tries.length;
      const theta = along(start, part, step);
      tries.push([part, kl(old, theta), gain(theta)]);
      if (kl(old, theta) <= maxKL && gain(theta) > 0) fraction = part;
    }
    // PPO: each epoch is one step of SGD up the gradient of the clipped objective
    const path = [start];
    while (path.length <= epochs) {
      const now = logProbabilities(path.at(-1));
      const pushes = advantages.map((advantage, a) => {
        const ratio = Math.exp(now[a] - old[a]);
        const clipped = Math.min(Math.max(ratio, 1 - epsilon), 1 + epsilon);
        return ratio * advantage <= clipped * advantage ? weight[a] * ratio * advantage : 0;
      });
      path.push(along(path.at(-1), rate, [0, 1].map((k) => pushes[k] - Math.exp(now[k]) * dot(pushes, [1, 1, 1]))));
    }
    const [accepted, end] = [along(start, fraction, step), path.at(-1)];
    const units = angles.map((angle) => [Math.cos(angle), Math.sin(angle)]);
    const model = units.map((unit) => Math.sqrt((2 * maxKL) / dot(unit, fisher(unit))));
    return {
      start, units, model, advantages, gradient, direction, step, tries, fraction, accepted, path,
      ball: units.map((unit, i) => radius(old, start, unit, model[i], maxKL)),
      kl: kl(old, accepted), gain: gain(accepted), ppo: end, ppo_kl: kl(old, end), ppo_gain: gain(end),
      ratios: logProbabilities(end).map((entry, a) => Math.exp(entry - old[a])),
    };
  };

  const short = (number) => String(Number(number.toPrecision(3)));
  const list = (numbers) => numbers.map((number) => number.toFixed(2)).join(", ");

  explorable({
    name: "trust-region",
    controls: [
      { name: "max_kl", label: "max_kl", min: -3, max: 0, step: 0.05, value: -1.3, logarithmic: true },
      { name: "damping", label: "damping", min: -4, max: 1, step: 0.1, value: -2, logarithmic: true },
      { name: "epsilon", label: "epsilon of PPO", min: 0.01, max: 0.5, step: 0.01, value: 0.2 },
      { name: "epochs", label: "epochs of PPO", min: 1, max: 100, step: 1, value: 10 },
      ...[1, 0, 0.6].map((value, a) => ({ name: `reward${a + 1}`, label: `reward of action ${a + 1}`, min: -1, max: 1, step: 0.1, value })),
    ],
    compute,
    describe({ advantages, gradient, step, tries, fraction, ratios, ...numbers }, { max_kl: maxKL }) {
      if (Math.hypot(...step) === 0) return "All rewards are equal, so neither method changes the policy.";
      const angle = Math.acos(Math.min(1, dot(gradient, step) / Math.hypot(...gradient) / Math.hypot(...step)));
      const rejected = `rejected, because its KL is ${short(tries[0][1])}. The line search accepts ${short(fraction)} times this step.`;
      return `The advantages are ${list(advantages)}. The angle between the natural direction and the gradient is ` +
        `${((180 / Math.PI) * angle).toFixed(0)}°. With max_kl = ${short(maxKL)}, the full step of TRPO is ` +
        `${tries.length > 1 ? rejected : "accepted."} The accepted step has a KL of ${short(numbers.kl)} and improves the ` +
        `surrogate by ${short(numbers.gain)}. PPO reaches a KL of ${short(numbers.ppo_kl)} and improves the surrogate by ` +
        `${short(numbers.ppo_gain)}. Its ratios are ${list(ratios)}.`;
    },
    height: (width) => Math.min(width * 1.2, 480),
    draw(pen, { start, units, ball, model, advantages, gradient, step, tries, fraction, path }) {
      const { colour, context } = pen;
      const top = 24 + pen.legend([
        ["exact KL = max_kl", colour.blue], ["quadratic model of the KL", colour.ink, [6, 4]], ["gradient", colour.orange],
        ["natural direction: the full step", colour.vermillion], ["PPO's epochs", colour.green]]);
      const [left, wide, high] = [44, pen.width - 52, pen.height - 44 - top];
      const circle = (radii) => [...units, units[0]].map((unit, i) => along(start, radii[i % units.length], unit));
      const points = [...circle(ball), ...circle(model), ...path, along(start, 1, step)];
      const range = (k) => [Math.min(...points.map((point) => point[k])), Math.max(...points.map((point) => point[k]))];
      const scale = 1.1 * Math.max((range(0)[1] - range(0)[0]) / wide, (range(1)[1] - range(1)[0]) / high); // theta per pixel
      const gap = [0.05, 0.1, 0.2, 0.5, 1, 2, 5].find((each) => each > 55 * scale);
      const axis = ([low, top], pixels, label) => {
        const [min, max] = [-1, 1].map((side) => (low + top + side * pixels * scale) / 2);
        const ticks = Array.from({ length: 40 }, (_, i) => (Math.ceil(min / gap) + i) * gap).filter((tick) => tick <= max);
        return { min, max, label, ticks: ticks.map((tick) => [tick, String(Number(tick.toFixed(2)))]) };
      };
      const [x, y] = [axis(range(0), wide, "theta 1"), axis(range(1), high, "theta 2")];
      const to = pen.axes([left, top, left + wide, top + high], x, y);
      const place = ([first, second]) => [to.x(first), to.y(second)];
      const curve = (thetas, ...style) => pen.line(thetas.map(place), ...style);
      const disc = (theta, ...style) => pen.dot(...place(theta), ...style);
      const ends = [[-1, -1], [1, 1], [0, 0], [-1, 1], [1, -1]];
      const cross = (theta, stroke) => curve(ends.map((corner) => along(theta, 6 * scale, corner)), stroke, { thickness: 3 });
      context.save();
      context.clip(new Path2D(`M ${left} ${top} h ${wide} v ${high} h ${-wide} z`));
      // contours of the surrogate: theta_2 solves e^theta_1 (A_1 - c) + e^theta_2 (A_2 - c) + A_3 - c = 0
      const across = Array.from({ length: 401 }, (_, k) => x.min + (k / 400) * (x.max - x.min));
      const atCorners = [x.min, x.max].flatMap((first) => [y.min, y.max].map((second) => mean([first, second], advantages)));
      const [least, most] = [Math.min(...atCorners), Math.max(...atCorners)];
      for (let i = 1; i < 16; i++) {
        const [first, second, third] = advantages.map((advantage) => advantage - least - (i / 16) * (most - least));
        context.globalAlpha = 0.2 + i / 20;
        const contour = across.map((theta) => [theta, Math.log(Math.max(1e-300, (Math.exp(theta) * first + third) / -second))]);
        curve(contour, colour.sky, { thickness: 1.3 });
      }
      context.restore();
      curve(circle(ball), colour.blue, { thickness: 3 });
      curve(circle(model), colour.ink, { dash: [6, 4] });
      curve([start, along(start, Math.hypot(...step) / (Math.hypot(...gradient) || 1), gradient)], colour.orange, { thickness: 3 });
      curve([start, along(start, 1, step)], colour.vermillion, { thickness: 3 });
      curve(path, colour.green);
      for (const theta of path) disc(theta, colour.green, 3);
      for (const [part] of tries) (part === fraction ? disc : cross)(along(start, part, step), colour.vermillion);
      disc(start, colour.ink);
    },
  });
}
