"use strict";
// Shows one pair after the other and keeps the answers; which clip is whose is not in this file.
const $ = (id) => document.getElementById(id);
const study = JSON.parse($("study").textContent);
const place = `snapvideo study ${study.study}`;
const clips = [$("left"), $("right")];
const sets = [...document.querySelectorAll("fieldset")];
const empty = () => ({ name: "", at: 0, votes: {} });
const state = read();
let playing = !matchMedia("(prefers-reduced-motion: reduce)").matches;
let asked = 0;  // the question that keys answer
let urls = [], stale = [];

function read() {
  try { return { ...empty(), ...JSON.parse(localStorage.getItem(place)) }; } catch { return empty(); }
}

function keep() {
  try {
    localStorage.setItem(place, JSON.stringify(state));
    say("Your answers are kept in this browser.");
  } catch {
    say("This browser keeps nothing: download your votes before you close the page.");
  }
}

const say = (text) => { $("said").textContent = text; };
const answersOf = (pair) => state.votes[pair.name] ?? {};
const isRated = (pair) => study.questions.every((question) => answersOf(pair)[question]);

// Both clips begin together; the shorter one waits for the longer.
function restart() {
  for (const clip of clips) clip.currentTime = 0;
  play(true);
}

function play(on) {
  playing = on;
  $("pause").textContent = on ? "Pause" : "Play";
  for (const clip of clips) {
    if (!on) clip.pause(); else if (!clip.ended) clip.play().catch(() => {});  // it was replaced by the next pair
  }
}

function ended() {
  if (playing && clips.every((clip) => clip.ended || clip.error)) restart();
}

function load(side, pair) {
  const text = atob($(`${side}-${pair.name}`).textContent);
  const bytes = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
  const url = URL.createObjectURL(new Blob([bytes], { type: "video/mp4" }));
  $(side).src = url;
  return url;
}

function begin() {
  if (clips.some((clip) => clip.readyState < 2)) return;
  for (const url of stale.splice(0)) URL.revokeObjectURL(url);  // not before: what still loads would complain
  $("clips").style.setProperty("--ratio", clips[0].videoWidth / clips[0].videoHeight);
  if (playing) restart(); else play(false);
}

function show(at) {
  state.at = at;
  const done = at >= study.pairs.length;
  $("rating").hidden = done;
  $("finished").hidden = !done;
  $("download").className = done ? "main" : "plain";
  stale.push(...urls);
  urls = [];
  if (done) { play(false); return mark(); }
  const pair = study.pairs[at];
  $("number").textContent = `Pair ${at + 1} of ${study.pairs.length}`;
  $("text").textContent = `“${pair.prompt}”`;
  $("back").disabled = at === 0;
  urls = ["left", "right"].map((side) => load(side, pair));
  sets.forEach((set, i) => {
    for (const input of set.querySelectorAll("input")) input.checked = answersOf(pair)[study.questions[i]] === input.value;
  });
  asked = study.questions.findIndex((question) => !answersOf(pair)[question]);
  mark();
}

function mark() {
  const rated = study.pairs.filter(isRated).length;
  $("progress").value = rated;
  $("count").textContent = `${rated} of ${study.pairs.length} pairs rated`;
  const pair = study.pairs[state.at];
  sets.forEach((set, i) => set.classList.toggle("here", i === asked));
  if (!pair) return;
  const others = study.pairs.some((each) => each !== pair && !isRated(each));
  $("next").textContent = !isRated(pair) ? "Skip for now" : others ? "Next pair" : "Finish";
}

function answer(i, value) {
  const pair = study.pairs[state.at];
  state.votes[pair.name] = { ...answersOf(pair), [study.questions[i]]: value };
  keep();
  mark();
}

function go(at) {
  show(at);
  keep();
  (at >= study.pairs.length ? $("thanks") : $("text")).focus();
}

// The next pair that is not rated, after this one or else from the first; the end, where there is none.
function next() {
  const count = study.pairs.length;
  const order = study.pairs.map((_, i) => (state.at + 1 + i) % count);
  go(order.find((i) => !isRated(study.pairs[i])) ?? count);
}

function download() {
  state.name = $("name").value.trim();
  $("name").setAttribute("aria-invalid", String(!state.name));
  if (!state.name) {
    say("Write your name first, at the top: your votes are told from others' by it.");
    return $("name").focus();
  }
  const votes = study.pairs.flatMap((pair) => study.questions
    .filter((question) => answersOf(pair)[question])
    .map((question) => ({ pair: pair.name, question, answer: answersOf(pair)[question] })));
  const file = { study: study.study, rater: state.name, saved: new Date().toISOString(), votes };
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([JSON.stringify(file, null, 1)], { type: "application/json" }));
  link.download = `votes_${state.name.replace(/[^\p{L}\p{N}_.-]+/gu, "-")}.json`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  keep();
  say(`${link.download}: ${votes.length} answers, of ${study.pairs.length * study.questions.length}.`);
}

for (const clip of clips) {
  clip.muted = true;
  clip.addEventListener("loadeddata", begin);
  clip.addEventListener("ended", ended);
  clip.addEventListener("error", () => { if (clip.src) say("A clip of this pair cannot be played by this browser."); });
}
sets.forEach((set, i) => {
  set.addEventListener("focusin", () => { asked = i; mark(); });
  set.addEventListener("change", (event) => answer(i, event.target.value));
});
$("name").addEventListener("input", () => { state.name = $("name").value; keep(); });
$("questions").addEventListener("submit", (event) => event.preventDefault());
$("replay").addEventListener("click", restart);
$("pause").addEventListener("click", () => (playing || !clips.every((clip) => clip.ended) ? play(!playing) : restart()));
$("back").addEventListener("click", () => go(state.at - 1));
$("next").addEventListener("click", next);
$("again").addEventListener("click", () => go(0));
$("download").addEventListener("click", download);
$("other").addEventListener("click", () => {
  if (!confirm("Forget these answers in this browser? Download them first.")) return;
  Object.assign(state, empty());
  $("name").value = "";
  go(0);
});

const actions = { r: "replay", p: "pause", n: "next", b: "back" };
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.repeat || event.target === $("name")) return;
  if (!$("shortcuts").checked || $("rating").hidden) return;
  const button = $(actions[event.key.toLowerCase()] ?? "");
  if (button) { button.click(); return event.preventDefault(); }
  const input = sets[asked]?.querySelectorAll("input")["123".indexOf(event.key)];
  if (!input) return;
  event.preventDefault();
  input.checked = true;
  answer(asked, input.value);
  asked = asked + 1 < sets.length ? asked + 1 : -1;
  if (asked < 0) $("next").focus();
  else if (document.activeElement.closest("fieldset")) sets[asked].querySelector("input").focus();  // it goes along
  mark();
});

$("name").value = state.name;
show(Math.min(state.at, study.pairs.length));
