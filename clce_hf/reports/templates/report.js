"use strict";
// Shows the image of the dot that is pointed at, tapped or walked to, and where it lies in each map.
const data = JSON.parse(document.getElementById("data").textContent);
const maps = [...document.querySelectorAll(".map")];
const card = document.getElementById("card");
const reach = 24; // pixels

function show(map, i) {
  maps.forEach((other, m) => {
    const ring = other.querySelector(".ring");
    ring.hidden = false;
    [ring.style.left, ring.style.top] = data.maps[m].places[i].map((part) => `${part}%`);
  });
  const predicted = data.maps[map].predicted[i];
  const wrong = [undefined, data.names[i]].includes(predicted) ? "" : `, taken for ${predicted}`;
  card.querySelector(".thumbnail").style.backgroundPosition = data.thumbnails[i];
  card.querySelector("p").textContent = data.names[i] + wrong;
  card.hidden = false;
  place(map, i);
  maps[map].dataset.shown = i;
}

function place(map, i) {
  const [x, y] = pixels(map, i);
  const box = maps[map].getBoundingClientRect();
  const room = document.documentElement.clientWidth - card.offsetWidth - 8;
  const above = box.top + y - card.offsetHeight - 16;
  const top = above > 0 ? above : box.top + y + 16;
  card.style.left = `${scrollX + Math.max(8, Math.min(room, box.left + x - card.offsetWidth / 2))}px`;
  card.style.top = `${scrollY + top}px`;
}

function hide() {
  card.hidden = true;
  maps.forEach((map) => { map.querySelector(".ring").hidden = true; });
}

function pixels(map, i) {
  const [x, y] = data.maps[map].places[i];
  return [(x * maps[map].clientWidth) / 100, (y * maps[map].clientHeight) / 100];
}

// The image with the least cost, undefined where none has a finite one.
function best(cost) {
  const costs = data.names.map((_, i) => cost(i));
  const least = Math.min(...costs);
  return least < Infinity ? costs.indexOf(least) : undefined;
}

function point(map, event) {
  const box = maps[map].getBoundingClientRect();
  const i = best((j) => {
    const [x, y] = pixels(map, j);
    const distance = Math.hypot(event.clientX - box.left - x, event.clientY - box.top - y);
    return distance < reach ? distance : Infinity;
  });
  if (i === undefined) hide();
  else show(map, i);
}

const directions = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

function walk(map, event) {
  if (event.key === "Escape") hide();
  const direction = directions[event.key];
  if (!direction) return;
  event.preventDefault();
  const [fromX, fromY] = pixels(map, Number(maps[map].dataset.shown ?? 0));
  const i = best((j) => {
    const [x, y] = pixels(map, j);
    const ahead = (x - fromX) * direction[0] + (y - fromY) * direction[1];
    const aside = Math.abs((x - fromX) * direction[1]) + Math.abs((y - fromY) * direction[0]);
    return ahead > 0 && aside <= ahead ? Math.hypot(ahead, aside) : Infinity;
  });
  if (i !== undefined) show(map, i);
}

maps.forEach((element, map) => {
  element.addEventListener("pointermove", (event) => event.pointerType === "mouse" && point(map, event));
  element.addEventListener("pointerleave", (event) => event.pointerType === "mouse" && hide());
  element.addEventListener("click", (event) => point(map, event));
  element.addEventListener("keydown", (event) => walk(map, event));
  element.addEventListener("focus", () => {
    if (element.matches(":focus-visible")) show(map, Number(element.dataset.shown ?? 0));
  });
  element.addEventListener("blur", hide);
});
document.addEventListener("click", (event) => event.target.closest(".map") || hide());
