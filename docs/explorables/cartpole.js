// Gymnasium's CartPole-v1, balanced by the policies of six points of a training run.
"use strict";
{
  const SECONDS_PER_STEP = 0.02;
  const LIMIT = 500; // steps of an episode
  const FALLEN = (12 * 2 * Math.PI) / 360;
  const EDGE = 2.4; // metres from the middle of the track
  const PAUSE = 0.8; // seconds between two episodes
  const PUSH = { force: 10, steps: 8 }; // newtons, and for how many steps of 0.02 s

  // One Euler step of the equations of motion; the policy's force is 10 N in either direction.
  const step = ([x, velocity, angle, turn], force) => {
    const [cos, sin] = [Math.cos(angle), Math.sin(angle)];
    const [gravity, pole, total, length] = [9.8, 0.1, 1.1, 0.5];
    const shared = (force + pole * length * turn ** 2 * sin) / total;
    const turning = (gravity * sin - cos * shared) / (length * (4 / 3 - (pole * cos ** 2) / total));
    const acceleration = shared - (pole * length * turning * cos) / total;
    return [
      x + SECONDS_PER_STEP * velocity,
      velocity + SECONDS_PER_STEP * acceleration,
      angle + SECONDS_PER_STEP * turn,
      turn + SECONDS_PER_STEP * turning,
    ];
  };
  const over = ([x, , angle]) => Math.abs(x) > EDGE || Math.abs(angle) > FALLEN;

  // The probability that the policy pushes right. Gymnasium rounds observations to 32 bits.
  const probabilityRight = ({ sizes, unit }, weights, state) => {
    let inputs = state.map(Math.fround);
    let start = 0;
    sizes.slice(1).forEach((width, layer) => {
      const biases = start + inputs.length * width;
      const outputs = new Array(width).fill(0);
      for (let i = 0; i < inputs.length; i++) {
        for (let j = 0; j < width; j++) outputs[j] += inputs[i] * (weights[start + i * width + j] / unit);
      }
      for (let j = 0; j < width; j++) outputs[j] += weights[biases + j] / unit;
      inputs = layer < sizes.length - 2 ? outputs.map(Math.tanh) : outputs;
      start = biases + width;
    });
    return 1 / (1 + Math.exp(inputs[0] - inputs[1]));
  };

  const begin = ({ angle }) => [0, 0, (angle * Math.PI) / 180, 0];
  const compute = (values, data) => {
    const { weights, steps: trained, mean_return } = data.checkpoints[values.checkpoint];
    let state = begin(values);
    const right = probabilityRight(data, weights, state);
    let steps = 0;
    let later = state;
    while (steps < LIMIT && !over(state)) {
      state = step(state, probabilityRight(data, weights, state) > 0.5 ? 10 : -10);
      steps += 1;
      if (steps <= 50) later = state;
    }
    return { right, steps, after_a_second: later, trained, mean_return };
  };

  // The animation: actions are sampled, and the reader's push is a second force.
  const push = (direction) => (state) => { state.push = { force: direction * PUSH.force, left: PUSH.steps }; };
  const advance = (state, seconds, numbers, values) => {
    const data = explorables.data.cartpole;
    const key = `${values.checkpoint} at ${values.angle}`;
    if (state.key !== key) Object.assign(state, { key, best: 0, clock: 0, pause: 0, cart: null });
    if (state.pause > 0) {
      state.pause -= seconds;
      if (state.pause <= 0) state.cart = null;
      return;
    }
    if (!state.cart) {
      Object.assign(state, { cart: begin(values), right: numbers.right, steps: 0, pause: 0, push: null });
    }
    state.clock += seconds;
    while (state.clock >= SECONDS_PER_STEP && !state.pause) {
      state.clock -= SECONDS_PER_STEP;
      const { weights } = data.checkpoints[values.checkpoint];
      state.right = probabilityRight(data, weights, state.cart);
      const force = Math.random() < state.right ? 10 : -10;
      state.cart = step(state.cart, force + (state.push ? state.push.force : 0));
      if (state.push && --state.push.left === 0) state.push = null;
      state.steps += 1;
      state.best = Math.max(state.best, state.steps);
      if (over(state.cart) || state.steps === LIMIT) state.pause = PAUSE;
    }
  };

  const draw = (pen, { right: atStart }, values, state) => {
    const { context, colour, width, height } = pen;
    const cart = state.cart || begin(values);
    const right = state.cart ? state.right : atStart;
    const scale = width / (2 * EDGE + 0.6);
    const track = height - 74;
    const middle = width / 2 + cart[0] * scale;
    const size = { width: 0.55 * scale, height: 0.24 * scale };
    const top = track - 0.2 * scale - size.height / 2;
    pen.line([[width / 2 - EDGE * scale, track], [width / 2 + EDGE * scale, track]], colour.ink);
    for (const side of [-EDGE, EDGE]) {
      pen.line([[width / 2 + side * scale, track - 8], [width / 2 + side * scale, track + 8]], colour.ink);
    }
    context.fillStyle = colour.blue;
    context.fillRect(middle - size.width / 2, top, size.width, size.height);
    const radius = 0.06 * scale;
    for (const wheel of [-0.3, 0.3]) pen.dot(middle + wheel * size.width, track - radius, colour.blue, radius);
    const tip = [middle + Math.sin(cart[2]) * scale, top - Math.cos(cart[2]) * scale];
    context.lineCap = "round";
    pen.line([[middle, top], tip], colour.vermillion, { thickness: Math.max(5, 0.09 * scale) });
    const arrow = state.push && (state.push.force > 0 ? say`push →` : say`← push`);
    if (arrow) pen.text(arrow, middle, top + size.height / 2, { align: "center", fill: colour.paper });
    pen.text(say`balanced for ${state.steps || 0} steps`, 8, 14);
    pen.text(say`best: ${state.best || 0}`, width - 8, 14, { align: "right" });
    if (state.pause > 0) {
      const words = state.steps === LIMIT ? say`500 steps: the episode is complete` : say`the episode is over`;
      pen.text(words, width / 2, 34, { align: "center" });
    }
    const bar = { left: width * 0.28, right: width * 0.72, y: height - 36 };
    const split = bar.right - (bar.right - bar.left) * right;
    context.lineCap = "butt";
    pen.line([[bar.left, bar.y], [split, bar.y]], colour.orange, { thickness: 12 });
    pen.line([[split, bar.y], [bar.right, bar.y]], colour.green, { thickness: 12 });
    pen.text(say`${(1 - right).toFixed(2)} left`, bar.left - 8, bar.y, { align: "right" });
    pen.text(say`right ${right.toFixed(2)}`, bar.right + 8, bar.y);
    pen.text(say`probability of the next action`, width / 2, height - 14, { align: "center" });
  };

  explorable({
    name: "cartpole",
    controls: [
      {
        name: "checkpoint", label: say`trained for`,
        options: ({ checkpoints }) => checkpoints.map(({ steps }, i) => [i, say`${steps.toLocaleString("en")} steps`]),
      },
      { name: "angle", label: say`initial angle in degrees`, min: -11, max: 11, step: 0.5, value: 1 },
      { name: "left", label: say`← Push left`, key: "ArrowLeft", press: push(-1) },
      { name: "right", label: say`Push right →`, key: "ArrowRight", press: push(1) },
    ],
    height: (width) => Math.max(270, Math.min(0.62 * width, 380)), // room for words above the pole
    compute, advance, draw,
    describe({ right, steps, after_a_second: [x], trained, mean_return }, { angle }) {
      const [done, mean, share] = [trained.toLocaleString("en"), mean_return.toFixed(0), right.toFixed(2)];
      return joined(
        say`After ${done} steps of training, the mean return of 100 episodes is ${mean}.`,
        say`The largest possible return is ${LIMIT}.`,
        say`At an angle of ${angle}°, this policy pushes right with probability ${share}.`,
        say`With the most likely action at each step, it balances the pole for ${steps} steps.`,
        steps >= 50 && say`After one second, the cart is ${Math.abs(x).toFixed(2)} m from the middle.`,
      );
    },
  });
}
