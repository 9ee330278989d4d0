// What beta does to the answers: pi* = pi_ref exp(r / beta) / Z over all answers of the arithmetic task.
"use strict";
{
  const SHOWN = 6;
  const betas = Array.from({ length: 61 }, (_, i) => 10 ** (1.3 - 0.05 * i));
  const isNarrow = (width) => width < 560;
  const cache = {};
  const remember = (key, make) => (cache[key] ??= make());

  // Log-probability under the reference and both rewards of each answer to a prompt. The answers are
  // the nodes of minirl's tree: node n continued by word a is W n + 1 + a.
  const allAnswers = (prompt, data) => {
    const { words, gold, goldLevels, others } = data;
    const [W, digits, table] = [words.length, data.digits[prompt], data.logReference[prompt]];
    const contexts = (W ** data.maxWords - 1) / (W - 1);
    const [prefix, sums, seen, exchanged, spelled] = [[0], [0], [0], [0], [""]];
    const answers = { logs: [], learned: [], golds: [], texts: [] };
    for (let node = 0; node <= W * contexts; node++) {
      const [parent, word] = [Math.floor((node - 1) / W), (node - 1) % W];
      if (node > 0) {
        spelled.push(`${spelled[parent]} ${words[word]}`);
        prefix.push(prefix[parent] + table[parent && 1 + ((parent - 1) % W)][word]);
        // a digit counts once, any other word each time
        const isNew = !((seen[parent] >> word) & 1);
        sums.push(sums[parent] + (word < digits.length ? isNew * digits[word] : others[word - digits.length]));
        seen.push(seen[parent] | (1 << word));
        // the gold rewards are stored for the first prompt, whose right digit is word 0
        exchanged.push(W * exchanged[parent] + 1 + (word === 0 ? prompt : word === prompt ? 0 : word));
      }
      const cut = node >= contexts;
      answers.texts.push((spelled[node] + (cut ? " ..." : "")).trim());
      answers.logs.push(prefix[node] + (cut ? 0 : table[node && 1 + word][W]));
      answers.learned.push(data.offsets[prompt] + sums[node] + (cut ? data.cut : 0));
      answers.golds.push(goldLevels[gold[exchanged[node]]]);
    }
    return answers;
  };

  // The policy that maximises E[rewards] - beta KL; rewards are relative to the best to avoid overflow.
  const optimum = ({ logs, golds }, rewards, best, beta) => {
    let [total, below, gold] = [0, 0, 0];
    for (let y = 0; y < logs.length; y++) {
      const weight = Math.exp(logs[y] + (rewards[y] - best) / beta);
      total += weight;
      below += weight * (rewards[y] - best);
      gold += weight * golds[y];
    }
    const [logTotal, reward] = [Math.log(total), best + below / total];
    const kl = below / total / beta - logTotal;
    return { kl, reward, gold: gold / total, objective: best + beta * logTotal, logTotal };
  };

  // The answers with the largest log-probability; of equal ones, the first.
  const likeliest = (logs) => {
    const sizes = logs.map((log) => Math.round(log * 1e9));
    return Array.from({ length: SHOWN }, () => {
      const first = sizes.reduce((best, size, y) => (size > sizes[best] ? y : best), 0);
      sizes[first] = -Infinity;
      return first;
    });
  };

  const compute = ({ beta, reward, prompt }, data) => {
    const answers = remember(prompt, () => allAnswers(Number(prompt), data));
    const curve = (kind) => remember(prompt + kind, () => {
      const rewards = kind === "gold" ? answers.golds : answers.learned;
      const best = rewards.reduce((a, b) => Math.max(a, b));
      return { rewards, best, points: betas.map((b) => optimum(answers, rewards, best, b)) };
    });
    const [{ rewards, best, points }, frontier] = [curve(reward), curve("gold").points];
    const { logTotal, ...here } = optimum(answers, rewards, best, beta);
    const logs = answers.logs.map((log, y) => log + (rewards[y] - best) / beta - logTotal);
    const shown = likeliest(logs);
    return {
      ...here, prompt: data.prompts[prompt],
      texts: shown.map((y) => answers.texts[y]),
      probabilities: shown.map((y) => Math.exp(logs[y])),
      references: shown.map((y) => Math.exp(answers.logs[y])),
      answerGolds: shown.map((y) => answers.golds[y]),
      kls: points.map((p) => p.kl), rewards: points.map((p) => p.reward), golds: points.map((p) => p.gold),
      bestKls: frontier.map((p) => p.kl), bestGolds: frontier.map((p) => p.gold),
    };
  };

  const percent = (share) => (share < 1e-4 ? "< 0.01 %" : `${(100 * share).toFixed(share < 0.01 ? 2 : 0)} %`);

  const drawAnswers = (pen, numbers, right) => {
    const { context, colour, text } = pen;
    text("answer, probability, gold reward", 0, 14);
    numbers.texts.forEach((words, i) => {
      const y = 38 + 42 * i;
      const [here, there] = [numbers.probabilities[i], numbers.references[i]].map((p) => 1 + p * (right - 52));
      text(numbers.answerGolds[i].toFixed(1), right, y, { fill: colour.vermillion, align: "right" });
      text(percent(numbers.probabilities[i]), Math.max(here, there) + 6, y + 16);
      Object.assign(context, { fillStyle: colour.ink, textAlign: "left" });
      context.fillText(words || "(no words)", 0, y, right - 34); // condensed if it is too long
      pen.line([[0, y + 13], [here, y + 13]], colour.blue, { thickness: 9 });
      pen.line([[0, y + 21], [there, y + 21]], colour.orange, { thickness: 4 });
    });
    text("■ optimal policy", 0, 290, { fill: colour.blue });
    text("■ reference", 120, 290, { fill: colour.orange });
  };

  const drawCurve = (pen, { kl, kls, rewards, golds, bestKls, bestGolds, reward, gold }, isLearned, left, top) => {
    const { colour, width, height } = pen;
    const series = [[kls, golds, "gold reward of this policy", colour.vermillion]];
    if (isLearned) {
      series.push([kls, rewards, "learned reward of this policy", colour.blue, [6, 4]]);
      series.push([bestKls, bestGolds, "largest gold reward for this KL", colour.green, [2, 3]]);
    }
    const below = series.reduce((y, [, , ...row]) => pen.legend([row], y, left), top);
    // the square root of the KL, as in Gao, Schulman and Hilton (2022)
    const largest = Math.sqrt(Math.max(...kls));
    const most = Math.ceil(Math.max(...rewards, ...bestGolds));
    const roots = [0, 1, 2, 3, 4].filter((root) => root <= largest).map((root) => [root, String(root ** 2)]);
    const to = pen.axes(
      [left + 24, below + 18, width - 8, height - 44],
      { min: 0, max: largest, label: "KL to the reference in nats", ticks: roots },
      { min: 0, max: most, label: "expected reward", ticks: Array.from({ length: most + 1 }, (_, i) => [i, String(i)]) },
    );
    for (const [xs, ys, , stroke, dash] of series) {
      pen.line(xs.map((x, i) => [to.x(Math.sqrt(x)), to.y(ys[i])]), stroke, { dash });
    }
    if (isLearned) pen.dot(to.x(Math.sqrt(kl)), to.y(reward), colour.blue);
    pen.dot(to.x(Math.sqrt(kl)), to.y(gold), colour.vermillion);
  };

  explorable({
    name: "beta-answers",
    controls: [
      { name: "beta", label: "coefficient β of the KL", min: -1.7, max: 1.3, step: 0.05, value: -0.5, logarithmic: true },
      { name: "reward", label: "reward to maximise", options: [["learned", "learned reward"], ["gold", "gold reward"]] },
      { name: "prompt", label: "prompt", options: ({ prompts }) => prompts.map((words, i) => [String(i), words]) },
    ],
    height: (width) => (isNarrow(width) ? 600 : 310),
    compute,
    describe: (numbers, { beta, reward }) =>
      `With β = ${Number(beta.toPrecision(3))} and the ${reward} reward, the optimal policy is ` +
      `${numbers.kl.toFixed(2)} nats from the reference. ` +
      (reward === "gold" ? "" : `Its learned reward is ${numbers.reward.toFixed(2)}. `) +
      `Its gold reward is ${numbers.gold.toFixed(2)}. Its most likely answer to "${numbers.prompt}" is "${numbers.texts[0]}". This answer ` +
      `has probability ${percent(numbers.probabilities[0])}, and ${percent(numbers.references[0])} under the reference.`,
    draw(pen, numbers, { reward }) {
      const [left, top] = isNarrow(pen.width) ? [0, 320] : [pen.width / 2 + 4, 14];
      drawAnswers(pen, numbers, isNarrow(pen.width) ? pen.width : left - 20);
      drawCurve(pen, numbers, reward === "learned", left, top);
    },
  });
}
