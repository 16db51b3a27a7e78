"use strict";
// Pointing at a figure shows the values at that step in all of them; without it, legends hold the last values.
const [low, high, start, end, width] = document.body.dataset.axis.split(" ").map(Number);
const plots = document.querySelectorAll(".plot svg");
const readings = [...document.querySelectorAll("output[data-x]")].map((node) => ({
  node, last: node.textContent, steps: node.dataset.x.split(" ").map(Number), values: node.dataset.y.split(" "),
}));

function nearest(steps, step) {
  let first = 0, last = steps.length - 1;
  while (last - first > 1) {
    const middle = (first + last) >> 1;
    if (steps[middle] <= step) first = middle; else last = middle;
  }
  return step - steps[first] <= steps[last] - step ? first : last;
}

function show(step) {
  for (const { node, last, steps, values } of readings) {
    if (step === null) { node.textContent = last; continue; }
    const i = nearest(steps, step);
    node.textContent = `${values[i]} at step ${steps[i].toLocaleString("en")}`;
  }
  for (const plot of plots) {
    const cursor = plot.querySelector(".cursor");
    cursor.setAttribute("visibility", step === null ? "hidden" : "visible");
    if (step === null) continue;
    const x = start + (end - start) * (step - low) / (high - low);
    cursor.setAttribute("x1", x);
    cursor.setAttribute("x2", x);
  }
}

for (const plot of plots) {
  plot.addEventListener("pointermove", (event) => {
    const box = plot.getBoundingClientRect();
    const place = ((event.clientX - box.left) / box.width * width - start) / (end - start);
    show(low + Math.min(1, Math.max(0, place)) * (high - low));
  });
  plot.addEventListener("pointerleave", () => show(null));
}

// How long ago, so that an old page does not pass for news.
for (const node of document.querySelectorAll("time")) {
  const minutes = (Date.now() - Date.parse(node.dateTime)) / 60000;
  if (!(minutes >= 0)) continue;
  const [count, unit] = minutes < 90 ? [minutes, "min"] : minutes < 2880 ? [minutes / 60, "h"] : [minutes / 1440, "days"];
  node.append(` (${Math.round(count)} ${unit} ago)`);
}

// A page of a training that runs is soon old: load it anew when its tab is looked at again.
const loaded = Date.now();
document.addEventListener("visibilitychange", () => {
  const old = Date.now() - loaded > 60000;
  if (document.visibilityState === "visible" && document.body.dataset.state === "running" && old) location.reload();
});
