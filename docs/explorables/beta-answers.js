// What beta does to the answers: pi* = pi_ref exp(r / beta) / Z over all answers of the arithmetic task.
"use strict";
{
  const [SHOWN, ROW] = [6, 52]; // answers, and pixels per answer
  const betas = Array.from({ length: 61 }, (_, i) => 10 ** (1.3 - 0.05 * i));
  const isNarrow = (width) => width < 560;
  const column = (rows, key) => rows.map((row) => row[key]);
  const cache = {};

  // Log-probability under the reference and both rewards of each answer to a prompt. The answers are
  // the nodes of minirl's tree: node n continued by word a is W n + 1 + a.
  const allAnswers = (prompt, data) => {
    const { words, gold, goldLevels, others } = data;
    const [W, digits, table] = [words.length, data.digits[prompt], data.logReference[prompt]];
    const contexts = (W ** data.maxWords - 1) / (W - 1);
    const [prefix, sums, seen, exchanged, spelled] = [[0], [0], [0], [0], [""]];
    const answers = { logs: [], learned: [], gold: [], texts: [] };
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
      answers.gold.push(goldLevels[gold[exchanged[node]]]);
    }
    return answers;
  };

  // The policy that maximises E[rewards] - beta KL; rewards are relative to the best to avoid overflow.
  const optimum = ({ logs, gold: golds }, rewards, best, beta) => {
    let [total, below, gold] = [0, 0, 0];
    for (let y = 0; y < logs.length; y++) {
      const weight = Math.exp(logs[y] + (rewards[y] - best) / beta);
      total += weight;
      below += weight * (rewards[y] - best);
      gold += weight * golds[y];
    }
    const [logTotal, mean] = [Math.log(total), below / total];
    const [kl, objective] = [mean / beta - logTotal, best + beta * logTotal];
    return { kl, objective, logTotal, reward: best + mean, gold: gold / total };
  };

  const curveOf = (answers, rewards) => {
    const best = rewards.reduce((a, b) => Math.max(a, b));
    return { rewards, best, points: betas.map((beta) => optimum(answers, rewards, best, beta)) };
  };

  const compute = ({ beta, reward, prompt }, data) => {
    const answers = (cache[prompt] ??= allAnswers(Number(prompt), data));
    const curve = (kind) => (cache[prompt + kind] ??= curveOf(answers, answers[kind]));
    const [{ rewards, best, points }, frontier] = [curve(reward), curve("gold").points];
    const both = [...frontier, ...curve("learned").points];
    const { logTotal, ...here } = optimum(answers, rewards, best, beta);
    const logs = answers.logs.map((log, y) => log + (rewards[y] - best) / beta - logTotal);
    // the answers with the largest log-probability; of equal ones, the first
    const sizes = logs.map((log) => Math.round(log * 1e9));
    const shown = Array.from({ length: SHOWN }, () => {
      const first = sizes.reduce((most, size, y) => (size > sizes[most] ? y : most), 0);
      sizes[first] = -Infinity;
      return first;
    });
    return {
      ...here, prompt: data.prompts[prompt],
      texts: shown.map((y) => answers.texts[y]), answerGolds: shown.map((y) => answers.gold[y]),
      probabilities: shown.map((y) => Math.exp(logs[y])), references: shown.map((y) => Math.exp(answers.logs[y])),
      kls: column(points, "kl"), rewards: column(points, "reward"), golds: column(points, "gold"),
      bestKls: column(frontier, "kl"), bestGolds: column(frontier, "gold"),
      // the ends of the axes are the same for both rewards
      largestKl: Math.max(...column(both, "kl")), largestReward: Math.max(...column(both, "reward")),
    };
  };

  const percent = (share) =>
    share < 1e-4 ? "< 0.01 %" : share > 0.9995 ? "> 99.9 %" :
      `${(100 * share).toFixed(share < 0.01 ? 2 : share < 0.995 ? 0 : 1)} %`;
  const inWords = (share) => percent(share).replace("<", "less than").replace(">", "more than");

  const drawAnswers = (pen, numbers, right) => {
    const { context, colour, text } = pen;
    text("answer", 0, 14);
    text("gold reward", right, 14, { fill: colour.vermillion, align: "right" });
    numbers.texts.forEach((words, i) => {
      const y = 38 + ROW * i;
      text(numbers.answerGolds[i].toFixed(1), right, y, { fill: colour.vermillion, align: "right" });
      Object.assign(context, { fillStyle: colour.ink, textAlign: "left" });
      context.fillText(words || "(no words)", 0, y, right - 34); // condensed if it is too long
      for (const [share, bar, fill] of [
        [numbers.probabilities[i], y + 16, colour.blue], [numbers.references[i], y + 31, colour.orange]]) {
        const end = 1 + share * (right - 64);
        pen.line([[0, bar], [end, bar]], fill, { thickness: 9 });
        text(percent(share), end + 6, bar, { fill });
      }
    });
    pen.legend([["optimal policy", colour.blue], ["reference", colour.orange]], 38 + ROW * SHOWN);
  };

  const drawCurve = (pen, numbers, isLearned, left, top) => {
    const { colour, width, height } = pen;
    const { kl, kls, rewards, golds, bestKls, bestGolds, reward, gold } = numbers;
    const series = [
      [kls, golds, "gold reward of this policy", colour.vermillion],
      [kls, rewards, "learned reward of this policy", colour.blue, [6, 4]],
      [bestKls, bestGolds, "largest gold reward for this KL", colour.green, [2, 3]],
    ].slice(0, isLearned ? 3 : 1);
    series.reduce((y, [, , ...row]) => pen.legend([row], y, left), top);
    const [largest, most] = [Math.sqrt(numbers.largestKl), 1.05 * numbers.largestReward]; // as in Gao et al. (2022)
    const roots = pen.ticks(0, largest, 5).map(([root]) => [root, String(root ** 2)]);
    const to = pen.axes([left + 24, top + 72, width - 8, height - 44],
      { min: 0, max: largest, label: "KL to the reference in nats (square-root scale)", ticks: roots },
      { min: 0, max: most, label: "expected reward", ticks: pen.ticks(0, most, 5) });
    for (const [xs, ys, , stroke, dash] of series) {
      pen.line(xs.map((x, i) => [to.x(Math.sqrt(x)), to.y(ys[i])]), stroke, { dash });
    }
    if (isLearned) pen.dot(to.x(Math.sqrt(kl)), to.y(reward), colour.blue, 8);
    pen.dot(to.x(Math.sqrt(kl)), to.y(gold), colour.vermillion, 5);
  };

  explorable({
    name: "beta-answers",
    controls: [
      { name: "beta", label: "KL coefficient β", min: -1.7, max: 1.3, step: 0.05, value: -0.5, logarithmic: true },
      { name: "reward", label: "maximised reward", options: [["learned", "learned reward"], ["gold", "gold reward"]] },
      { name: "prompt", label: "prompt", options: ({ prompts }) => prompts.map((words, i) => [String(i), words]) },
    ],
    height: (width) => (isNarrow(width) ? 690 : 364),
    compute,
    describe: ({ kl, gold, prompt, texts, probabilities, references, ...numbers }, { beta, reward }) =>
      `With β = ${Number(beta.toPrecision(3))} and the ${reward} reward, the optimal policy has a KL of ` +
      `${kl.toPrecision(kl < 1 ? 2 : 3)} nats to the reference. ` +
      (reward === "gold" ? "" : `Its learned reward is ${numbers.reward.toFixed(2)}. `) +
      `Its gold reward is ${gold.toFixed(2)}. Its most likely answer to "${prompt}" is "${texts[0]}". This ` +
      `answer has probability ${inWords(probabilities[0])}, and ${inWords(references[0])} under the reference.`,
    draw(pen, numbers, { reward }) {
      const [left, top] = isNarrow(pen.width) ? [0, 372] : [pen.width / 2 + 4, 14];
      drawAnswers(pen, numbers, isNarrow(pen.width) ? pen.width : left - 20);
      drawCurve(pen, numbers, reward === "learned", left, top);
    },
  });
}
