// Six runs, five of them with a bug: the reader looks at the curves and chooses the bug.
"use strict";
{
  const MOST_STEPS = 5100; // the axis; the last rollout of a run is completed
  const GREY = "#808080"; // has a contrast of at least 3 on the light and on the dark page

  const mean = (values) => values.reduce((sum, value) => sum + value, 0) / values.length;
  const last = (values) => values[values.length - 1];

  const compute = ({ run, guess }, { runs, clues, max_kl }) => {
    const curves = runs[run];
    const { mean_return, kl, explained_variance: explained, rows_per_step } = curves;
    return {
      final_return: last(mean_return),
      largest_kl: Math.max(...kl),
      above: kl.filter((value) => value > max_kl).length,
      explained: mean(explained.slice(Math.floor(explained.length / 2))),
      rows_per_step: last(rows_per_step),
      verdict: guess === "?" ? "open" : guess === curves.bug ? "right" : "wrong",
      updates: kl.length,
      clue: guess === "?" ? "" : clues.find(([bug]) => bug === guess)[2],
      healthy: runs.find(({ bug }) => bug === "no bug"),
      curves,
      max_kl,
    };
  };

  const describe = (numbers, { run }) => {
    const { verdict, final_return, largest_kl, above, updates } = numbers;
    const { explained, rows_per_step, max_kl, clue, curves } = numbers;
    const opinion = {
      open: "Which bug does this run have, if any?",
      right: `Right. ${clue}${curves.bug === "no bug" ? "" : " The grey curves are those of the run without a bug."}`,
      wrong: `This answer is wrong. ${clue}`,
    };
    return (
      `At the end of run ${Number(run) + 1}, the mean return is ${final_return.toFixed(2)}. The largest KL of an ` +
      `update is ${largest_kl.toLocaleString("en", { maximumSignificantDigits: 2 })} nats, and ${above} of ` +
      `${updates} updates exceed max_kl = ${max_kl}. In the second half of the run, the mean explained variance of ` +
      `the critic is ${explained.toFixed(2)}. The critic uses ${rows_per_step.toFixed(2)} rows per environment ` +
      `step. ${opinion[verdict]}`
    );
  };

  const panels = ({ max_kl, largest_kl }) => [
    { name: "mean_return", label: "mean return", min: 0, max: 1, ticks: [0, 0.5, 1] },
    {
      name: "kl",
      label: "KL of the update, nats",
      min: 1e-5,
      max: largest_kl > 1 ? 1e6 : 1,
      ticks: largest_kl > 1 ? [1e-4, 1, 1e4] : [1e-4, 1e-2, 1],
      logarithmic: true,
      line: max_kl,
    },
    { name: "explained_variance", label: "explained variance", min: -2.2, max: 1, ticks: [-2, -1, 0, 1], line: 0 },
    { name: "rows_per_step", label: "critic's rows per step", min: 0.9, max: 1.3, ticks: [0.9, 1.1, 1.3], line: 1 },
  ];
  const words = (tick) => tick.toLocaleString("en", { maximumFractionDigits: 4 });
  const columns = (width) => (width < 480 ? 1 : 2);

  const draw = (pen, numbers) => {
    const { colour, width, height } = pen;
    const across = columns(width);
    const cell = { width: width / across, height: height / (4 / across) };
    panels(numbers).forEach((panel, index) => {
      const left = (index % across) * cell.width;
      const top = Math.floor(index / across) * cell.height;
      const box = [left + 46, top + 28, left + cell.width - 14, top + cell.height - 46];
      const to = pen.axes(
        box,
        { min: 0, max: MOST_STEPS, label: "environment steps", ticks: [0, 2500, 5000].map((v) => [v, String(v)]) },
        { ...panel, ticks: panel.ticks.map((tick) => [tick, words(tick)]) },
      );
      const curve = (run, stroke, thickness) => {
        const inside = (value) => Math.min(panel.max, Math.max(panel.min, value));
        const points = run.environment_steps.map((x, i) => [to.x(x), to.y(inside(run[panel.name][i]))]);
        pen.line(points, stroke, { thickness });
      };
      if (panel.line !== undefined) {
        const y = to.y(panel.line);
        pen.line([[to.x(0), y], [to.x(MOST_STEPS), y]], colour.ink, { dash: [2, 3], thickness: 1 });
      }
      if (numbers.verdict === "right" && numbers.curves.bug !== "no bug") curve(numbers.healthy, GREY, 4);
      curve(numbers.curves, colour.blue, 2);
    });
  };

  explorable({
    name: "bug-detective",
    controls: [
      {
        name: "run",
        label: "run",
        options: ({ runs }) => runs.map((_, i) => [i, `run ${i + 1}`]),
        resets: "guess",
      },
      {
        name: "guess",
        label: "what is wrong with this run",
        options: ({ clues }) => [["?", "choose an answer"], ...clues.map(([bug, label]) => [bug, label])],
      },
    ],
    height: (width) => (columns(width) === 1 ? 720 : 440),
    compute,
    describe,
    draw,
  });
}
