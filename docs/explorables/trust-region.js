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

  // The length at which KL(old || new) is max_kl: Newton's method on a convex function.
  const radius = (old, start, direction, length, maxKL) => {
    for (let i = 0; i < 12; i++) {
      const theta = along(start, length, direction);
      const change = along(logProbabilities(theta).map(Math.exp), -1, old.map(Math.exp));
      length -= (kl(old, theta) - maxKL) / dot(direction, change);
    }
    return length;
  };

  const compute = ({ max_kl: maxKL, damping, epsilon, epochs, ...values }, data) => {
    const { start, units, shrink, most, rate } = data;
    const rewards = [values.reward1, values.reward2, values.reward3];
    const old = logProbabilities(start);
    const weight = old.map(Math.exp);
    const advantages = rewards.map((reward) => dot(weight, rewards.map((other) => reward - other)));
    const gradient = [0, 1].map((k) => weight[k] * (advantages[k] - dot(weight, advantages)));
    const fisher = (v) => [0, 1].map((k) => weight[k] * (v[k] - weight[0] * v[0] - weight[1] * v[1]));
    const gain = (theta) => mean(theta, advantages) - dot(weight, advantages);

    // TRPO: the natural direction x of (F + damping I) x = gradient, the full step, and the line search
    const [[f11, f12], [, f22]] = [fisher([1, 0]), fisher([0, 1])];
    const adjugate = [[f22 + damping, -f12], [-f12, f11 + damping]];
    const determinant = (f11 + damping) * (f22 + damping) - f12 ** 2;
    const direction = adjugate.map((row) => dot(row, gradient) / determinant);
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
      const ascent = [0, 1].map((k) => pushes[k] - Math.exp(now[k]) * dot(pushes, [1, 1, 1]));
      path.push(along(path.at(-1), rate, ascent));
    }
    const [accepted, end] = [along(start, fraction, step), path.at(-1)];
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
      { name: "max_kl", label: say`max_kl in nats`, min: -3, max: 0, step: 0.05, value: -1.3, logarithmic: true },
      { name: "damping", label: say`damping`, min: -4, max: 1, step: 0.1, value: -2, logarithmic: true },
      { name: "epsilon", label: say`epsilon of PPO`, min: 0.01, max: 0.5, step: 0.01, value: 0.2 },
      { name: "epochs", label: say`epochs of PPO`, min: 1, max: 100, step: 1, value: 10 },
      ...[1, 0, 0.6].map((value, a) => (
        { name: `reward${a + 1}`, label: say`reward of action ${a + 1}`, min: -1, max: 1, step: 0.1, value })),
    ],
    compute,
    describe({ advantages, gradient, step, tries, fraction, ratios, ...rest }, { max_kl: maxKL }) {
      if (Math.hypot(...step) === 0) return say`All rewards are equal, so neither method changes the policy.`;
      const angle = Math.acos(Math.min(1, dot(gradient, step) / Math.hypot(...gradient) / Math.hypot(...step)));
      const first = tries.length === 1 ? say`accepted` : say`rejected, because its KL is ${short(tries[0][1])} nats`;
      return joined(
        say`The advantages are ${list(advantages)}.`,
        say`The angle between the natural direction and the gradient is ${((180 / Math.PI) * angle).toFixed(0)}°.`,
        say`With max_kl = ${short(maxKL)}, the full step of TRPO is ${first}.`,
        tries.length > 1 && say`The line search accepts ${short(fraction)} times this step.`,
        say`The accepted step has a KL of ${short(rest.kl)} nats and improves the surrogate by ${short(rest.gain)}.`,
        say`PPO reaches a KL of ${short(rest.ppo_kl)} nats and improves the surrogate by ${short(rest.ppo_gain)}.`,
        rest.ppo_kl > maxKL ? say`This KL is above max_kl.` : say`This KL is not above max_kl.`,
        say`The ratios of PPO are ${list(ratios)}.`,
      );
    },
    height: (width) => Math.max(420, Math.min(width * 1.2, 480)),
    draw(pen, { start, units, ball, model, advantages, gradient, step, tries, fraction, path }) {
      const { colour, context } = pen;
      const top = 24 + pen.legend([
        [say`exact KL = max_kl`, colour.blue], [say`quadratic model of the KL`, colour.ink, [6, 4]],
        [say`gradient`, colour.orange], [say`natural direction: the full step`, colour.vermillion],
        [say`PPO's epochs`, colour.green], [say`equal surrogate`, colour.sky]]);
      const [left, wide, high] = [44, pen.width - 52, pen.height - 44 - top];
      const circle = (radii) => [...units, units[0]].map((unit, i) => along(start, radii[i % units.length], unit));
      const uphill = along(start, Math.hypot(...step) / (Math.hypot(...gradient) || 1), gradient);
      const points = [...circle(ball), ...circle(model), ...path, along(start, 1, step), uphill];
      const ranges = [0, 1].map((k) => [Math.min, Math.max].map((end) => end(...points.map((point) => point[k]))));
      const scale = 1.1 * Math.max(...ranges.map(([from, to], k) => (to - from) / [wide, high][k])); // theta per pixel
      const axis = ([low, high], pixels, label) => {
        const [min, max] = [-1, 1].map((side) => (low + high + side * pixels * scale) / 2);
        return { min, max, label, ticks: pen.ticks(min, max, Math.floor(pixels / 50)) };
      };
      const [x, y] = [axis(ranges[0], wide, "θ₁"), axis(ranges[1], high, "θ₂")];
      const to = pen.axes([left, top, left + wide, top + high], x, y);
      const place = ([first, second]) => [to.x(first), to.y(second)];
      const curve = (thetas, ...style) => pen.line(thetas.map(place), ...style);
      const disc = (theta, ...style) => pen.dot(...place(theta), ...style);
      const corners = [[-1, -1], [1, 1], [0, 0], [-1, 1], [1, -1]];
      const cross = (theta, stroke) =>
        curve(corners.map((corner) => along(theta, 6 * scale, corner)), stroke, { thickness: 3 });
      context.save();
      context.clip(new Path2D(`M ${left} ${top} h ${wide} v ${high} h ${-wide} z`));
      // contours of the surrogate: theta_2 solves e^theta_1 (A_1 - c) + e^theta_2 (A_2 - c) + A_3 - c = 0
      const across = Array.from({ length: 401 }, (_, k) => x.min + (k / 400) * (x.max - x.min));
      const atCorners = corners.map(([first, second]) =>
        mean([first < 0 ? x.min : x.max, second < 0 ? y.min : y.max], advantages));
      const [least, largest] = [Math.min(...atCorners), Math.max(...atCorners)];
      for (let i = 1; i < 16; i++) {
        const [first, second, third] = along(advantages, -least - (i / 16) * (largest - least), [1, 1, 1]);
        const ratio = (theta) => (Math.exp(theta) * first + third) / -second;
        context.globalAlpha = 0.2 + i / 20;
        curve(across.map((theta) => [theta, Math.log(Math.max(1e-300, ratio(theta)))]), colour.sky, { thickness: 1.3 });
      }
      context.restore();
      curve(circle(ball), colour.blue, { thickness: 3 });
      curve(circle(model), colour.ink, { dash: [6, 4] });
      curve([start, uphill], colour.orange, { thickness: 3 });
      curve([start, along(start, 1, step)], colour.vermillion, { thickness: 3 });
      curve(path, colour.green);
      for (const theta of path) disc(theta, colour.green, 3);
      const drawn = Math.hypot(...step) > 0 ? tries : []; // with equal rewards, there is no step
      for (const [part] of drawn) (part === fraction ? disc : cross)(along(start, part, step), colour.vermillion);
      disc(start, colour.ink);
    },
  });
}
