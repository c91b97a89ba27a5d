// The values of curves under the pointer, or with the arrow keys, and links into the ledger. Nothing is fetched.
"use strict";
const shown = document.getElementById("values");
for (const plot of document.querySelectorAll("[data-curves]")) {
  const panels = JSON.parse(plot.dataset.curves), svg = plot.querySelector("svg");
  const cross = plot.appendChild(document.createElement("i"));
  cross.className = "cross";
  cross.hidden = true;
  let panel = panels.find(p => p.curves.length), at = -1;

  const steps = p => [...new Set(p.curves.flatMap(c => c.steps))].sort((a, b) => a - b);
  const show = step => {
    const box = svg.getBoundingClientRect(), own = plot.getBoundingClientRect(), [left, top, right, bottom] = panel.box;
    const x = box.left + box.width * (left + (right - left) * (step - panel.x[0]) / (panel.x[1] - panel.x[0]));
    const lines = panel.curves.filter(c => c.steps.includes(step))
      .map(c => [c.mean[c.steps.indexOf(step)], c]).sort((a, b) => b[0] - a[0])
      .map(([value, c]) => value.toFixed(c.digits) + "  " + c.label);
    shown.textContent = [panel.label + ", step " + step, ...lines].join("\n");
    shown.hidden = cross.hidden = false;
    Object.assign(cross.style, { left: x - own.left + "px", top: box.top - own.top + box.height * top + "px",
      height: box.height * (bottom - top) + "px" });
    const width = shown.offsetWidth, middle = box.top + box.height * (top + bottom) / 2 - shown.offsetHeight / 2;
    shown.style.left = Math.max(8, x + 14 + width > innerWidth ? x - 14 - width : x + 14) + "px";
    shown.style.top = Math.max(8, Math.min(innerHeight - shown.offsetHeight - 8, middle)) + "px";
  };
  const hide = () => { shown.hidden = cross.hidden = true; };

  plot.addEventListener("pointermove", event => {
    const box = svg.getBoundingClientRect();
    const u = (event.clientX - box.left) / box.width, v = (event.clientY - box.top) / box.height;
    const under = panels.find(({ box: [l, t, r, b], curves }) => curves.length && u >= l && u <= r && v >= t && v <= b);
    if (!under) return hide();
    panel = under;
    const x = panel.x[0] + (u - panel.box[0]) / (panel.box[2] - panel.box[0]) * (panel.x[1] - panel.x[0]);
    const all = steps(panel);
    at = all.reduce((best, step, i) => Math.abs(step - x) < Math.abs(all[best] - x) ? i : best, 0);
    show(all[at]);
  });
  plot.addEventListener("pointerleave", hide);
  plot.addEventListener("blur", hide);
  plot.addEventListener("keydown", event => {
    const move = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: 0, ArrowUp: 0 }[event.key];
    if (event.key === "Escape") return hide();
    if (move === undefined) return;
    event.preventDefault();
    if (move === 0) {
      const filled = panels.filter(p => p.curves.length), turn = event.key === "ArrowDown" ? 1 : filled.length - 1;
      panel = filled[(filled.indexOf(panel) + turn) % filled.length];
    }
    const all = steps(panel);
    at = Math.max(0, Math.min(all.length - 1, at + move));
    show(all[at]);
  });
}

// A link to a run opens the ledger's entry that holds it, and the keyboard goes on from there.
const follow = () => {
  const target = document.getElementById(decodeURIComponent(location.hash.slice(1))), entry = target?.closest("details");
  if (!entry) return;
  entry.open = true;
  target.scrollIntoView();
  entry.querySelector("summary").focus({ preventScroll: true });
};
addEventListener("hashchange", follow);
document.addEventListener("click", event => {
  const link = event.target.closest("a");
  if (link && link.hash === location.hash) follow(); // again to the same place: no hashchange
});
follow();
