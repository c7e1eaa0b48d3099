"""CSS, JavaScript and markup of the HTML page that plays a trajectory."""

STYLE = """
:root { color-scheme: light dark; --paper: #fbfaf7; --ink: #1e2630; --settled: #173f63; --fresh: #b3541e;
  --noise: #979691; --faint: #686b70; --line: #e3e0d8; --fill: #dbe6ef; --accent: #2f6690;
  --guided: #efeadd; }
@media (prefers-color-scheme: dark) { :root { --paper: #14171b; --ink: #e6e3dc; --settled: #d3e5f5;
  --fresh: #f0a873; --noise: #6b7178; --faint: #969ba1; --line: #2a2f35; --fill: #22384a;
  --accent: #7db4dc; --guided: #23262a; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink); font: 1rem/1.5 system-ui, sans-serif; }
main { max-width: 64rem; margin: 0 auto; padding: clamp(1.5rem, 6vh, 4rem) 1.5rem 2rem; }
header { display: flex; flex-wrap: wrap; align-items: baseline; justify-content: space-between; gap: 0 2rem; }
h1 { margin: 0; font-size: 1.15rem; font-weight: 600; overflow-wrap: anywhere; }
output { color: var(--faint); font-size: .9rem; font-variant-numeric: tabular-nums; }
output b { color: var(--ink); font-weight: 600; }
ol { list-style: none; margin: 2rem 0 2.5rem; padding: 0; }
li { padding: 1.1rem 0; border-top: 1px solid var(--line); font: clamp(1.2rem, 2.1vw, 1.65rem)/1.65
  Georgia, "Iowan Old Style", "Liberation Serif", "Noto Serif CJK SC", serif; }
li:last-child { border-bottom: 1px solid var(--line); }
.slot { display: inline-block; position: relative; min-width: 2.3em; height: 1.65em; margin-right: .28em;
  vertical-align: bottom; white-space: pre; max-width: 100%; overflow: hidden;
  transition: min-width .7s ease, margin .7s ease; }
.slot::before { content: attr(data-last); visibility: hidden; }
.done .slot { min-width: 0; }
.done .slot.padding { margin: 0; }
.word { position: absolute; inset: 0; overflow: hidden; text-overflow: ellipsis; text-align: center;
  color: var(--settled);
  transition: color 1.2s ease; }
.word.noise { color: var(--noise); font-size: .78em; line-height: 2.115; transition: none; }
.word.fresh { color: var(--fresh); transition: none; }
.curves { margin: .5rem 0 .2rem; font: .85rem/1.4 system-ui, sans-serif; color: var(--faint); }
.curves svg { width: calc(100% - 1rem); height: 4.5rem; margin: 0 .5rem; border-bottom: 1px solid var(--line); }
.curves polyline { fill: none; stroke: var(--curve); stroke-width: 1.8; stroke-linejoin: round;
  vector-effect: non-scaling-stroke; }
.curves rect { fill: var(--guided); }
.curves line { stroke: var(--faint); }
figcaption { display: flex; flex-wrap: wrap; gap: 0 1.6rem; margin-top: .35rem; }
figcaption b { color: var(--ink); font-weight: 600; font-variant-numeric: tabular-nums; }
figcaption .name { color: var(--curve); overflow-wrap: anywhere; }
figcaption .scale { margin-left: auto; }
.key { display: inline-block; width: 1.1em; height: .7em; background: var(--guided); }
.strip { padding: 0 .5rem; }
svg { display: block; width: 100%; height: 3.2rem; overflow: visible; }
svg polygon { fill: var(--fill); }
svg line { stroke: var(--accent); stroke-width: 1.5; vector-effect: non-scaling-stroke; }
svg line.floor { stroke: var(--line); }
input { appearance: none; display: block; width: 100%; height: 1.4rem; margin: -.7rem 0 0; background: none; }
input::-webkit-slider-thumb { appearance: none; width: 1rem; height: 1rem; border-radius: 50%;
  background: var(--accent); border: 2px solid var(--paper); }
input::-moz-range-thumb { width: 1rem; height: 1rem; border-radius: 50%; background: var(--accent);
  border: 2px solid var(--paper); box-sizing: border-box; }
input:focus-visible, button:focus-visible { outline: 2px solid var(--accent); outline-offset: 3px;
  border-radius: 9px; }
footer { display: flex; align-items: center; gap: 1.2rem; margin-top: .8rem; color: var(--faint);
  font-size: .85rem; }
.legend { margin-left: auto; }
button { font: inherit; min-width: 5rem; padding: .35rem 1rem; color: var(--accent); background: none;
  border: 1px solid currentColor; border-radius: 9px; cursor: pointer; }
.still * { transition: none !important; }
@media (prefers-reduced-motion: reduce) { * { transition: none !important; } }
"""

SCRIPT = """
"use strict";
const trajectory = JSON.parse(document.getElementById("trajectory").textContent);
const [slider, button, status, head, time, share, count] =
  ["step", "play", "status", "head", "time", "share", "count"].map((id) => document.getElementById(id));
const sentences = Array.from(document.querySelectorAll("li"));
const words = sentences.map((sentence) => Array.from(sentence.querySelectorAll(".word")));
const nats = sentences.map((sentence) => Array.from(sentence.querySelectorAll(".nats")));
const heads = [head, ...document.querySelectorAll(".now")];
const last = trajectory.times.length - 1;
const recent = Math.max(1, Math.round(last / 16));
const msPerStep = Math.max(40, 9000 / Math.max(1, last));
let step = 0, timer = null;

function show(target) {
  step = Math.min(last, Math.max(0, target));
  sentences.forEach((sentence, s) => {
    words[s].forEach((word, p) => {
      const age = step - trajectory.since[s][p];
      word.textContent = trajectory.words[s][step][p];
      word.classList.toggle("noise", age < 0);
      word.classList.toggle("fresh", age >= 0 && age < recent && trajectory.since[s][p] > 0 && step < last);
    });
    nats[s].forEach((label, c) => {
      const value = trajectory.energies[c].nats[s][step];
      label.textContent = value === null ? "–" : value.toFixed(2);
    });
    sentence.classList.toggle("done", trajectory.since[s].every((since) => since <= step));
  });
  const t = "t = " + trajectory.times[step].toFixed(2);
  const settled = Math.round(100 * trajectory.share[step]) + "% settled";
  time.textContent = t;
  share.textContent = settled;
  count.textContent = "x_t at step " + step + " of " + last;
  for (const line of heads) for (const end of ["x1", "x2"]) line.setAttribute(end, step);
  slider.value = step;
  slider.setAttribute("aria-valuetext", t + ", " + settled);
}

function pause() {
  clearTimeout(timer);
  timer = null;
  button.textContent = "Play";
  status.setAttribute("aria-live", "polite");
}

function tick() {
  show(step + 1);
  if (step === last) pause();
  else timer = setTimeout(tick, msPerStep);
}

function play() {
  status.setAttribute("aria-live", "off");
  button.textContent = "Pause";
  if (step === last) show(0);
  timer = setTimeout(tick, msPerStep);
}

function toggle() { if (timer === null) play(); else pause(); }

function jump(target) { pause(); show(target); }

function keepHeights() {
  document.body.classList.add("still");
  sentences.forEach((sentence) => { sentence.style.minHeight = ""; sentence.classList.remove("done"); });
  sentences.forEach((sentence) => { sentence.style.minHeight = sentence.offsetHeight + "px"; });
  show(step);
  document.body.offsetHeight;  /* lays out now, before motion is allowed again */
  document.body.classList.remove("still");
}

button.addEventListener("click", toggle);
slider.addEventListener("input", () => jump(Number(slider.value)));
window.addEventListener("resize", keepHeights);
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const steps = { ArrowRight: step + 1, ArrowUp: step + 1, ArrowLeft: step - 1, ArrowDown: step - 1,
    Home: 0, End: last };
  if (event.key in steps) jump(steps[event.key]);
  else if (event.key === " " && event.target !== button) toggle();
  else return;
  event.preventDefault();
});
step = Math.min(last, Number.parseInt(location.hash.slice(1), 10) || 0);
keepHeights();
"""

PAGE = """<!doctype html>
<html lang="und">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
<main>
<header>
<h1>{title}</h1>
<output id="status" for="step" aria-live="polite"><b id="time">{time}</b> · <span
id="share">100% settled</span></output>
</header>
<ol>
{sentences}
</ol>
<div class="strip"><svg viewBox="0 0 {last} {height}" preserveAspectRatio="none" role="img"
aria-label="Share of settled words over the steps"><polygon points="{points}"/>
<line class="floor" x1="0" y1="{height}" x2="{last}" y2="{height}"/>
<line id="head" x1="{last}" y1="0" x2="{last}" y2="{height}"/></svg></div>
<input id="step" type="range" min="0" max="{last}" value="{last}" aria-label="Step, from noise to text">
<footer><button id="play" type="button">Play</button><span
id="count">x_t at step {last} of {last}</span><span class="legend">A coloured word no longer changes.</span></footer>
</main>
<script type="application/json" id="trajectory">{trajectory}</script>
<script>{script}</script>
</body>
</html>
"""
