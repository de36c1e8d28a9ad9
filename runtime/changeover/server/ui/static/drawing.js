// Draws graphs: laid out by dagre, as SVG made of elements and text alone. The numbers of what runs and waits are taken
// from the rows of a table that stays up to date; without this script that table and the list tell the same.
"use strict";

(() => {
  const SVG = "http://www.w3.org/2000/svg";
  const SIGNS = { added: "+", removed: "−", changed: "≠" };
  const READABLE = 0.7;  // of the natural size: smaller is scrolled instead
  const STEP = 1.25;
  const drawn = new WeakMap();  // by drawing: where its nodes are
  const pen = document.createElement("canvas").getContext("2d");

  function width(text, font) {
    pen.font = font;
    return pen.measureText(text).width;
  }

  function make(name, attributes = {}, ...children) {
    const element = document.createElementNS(SVG, name);
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    element.append(...children);
    return element;
  }

  const text = (words, x, y, kind, anchor = "middle") =>
    make("text", { x, y, class: kind, "text-anchor": anchor, "dominant-baseline": "central" }, words);

  function cut(words, most = 34) {
    return words.length > most ? words.slice(0, most - 1) + "…" : words;
  }

  const titled = (node) => (SIGNS[node.change] ? SIGNS[node.change] + " " : "") + cut(node.name);

  function size(node) {
    if (node.kind === "start" || node.kind === "end") {
      return node.box ? { width: 14, height: 14 } : { width: width(titled(node), "600 13px system-ui") + 26, height: 28 };
    }
    const words = Math.max(width(titled(node), "600 14px system-ui"), width(node.word, "12px system-ui"));
    return { width: Math.max(72, words + 28), height: 46 };
  }

  function layout(graph) {
    const laid = new dagre.graphlib.Graph({ compound: true, multigraph: true });
    laid.setGraph({ rankdir: "TB", nodesep: 26, ranksep: 38, edgesep: 14, marginx: 14, marginy: 18 });
    laid.setDefaultEdgeLabel(() => ({}));
    for (const box of graph.boxes) laid.setNode(`box ${box.id}`, {});
    for (const node of graph.nodes) {
      laid.setNode(`node ${node.id}`, size(node));
      if (node.box) laid.setParent(`node ${node.id}`, `box ${node.box}`);
    }
    graph.edges.forEach((edge, place) => {
      const from = `node ${edge.from}`, to = `node ${edge.to}`;
      if (!laid.hasNode(from) || !laid.hasNode(to)) return;
      const label = cut((SIGNS[edge.change] ? SIGNS[edge.change] + " " : "") + edge.label);
      const space = label ? { width: width(label, "12px system-ui") + 8, height: 16, labelpos: "c" } : {};
      laid.setEdge(from, to, { ...space, edge, label }, String(place));
    });
    dagre.layout(laid);
    return laid;
  }

  function curve(points) {
    const at = (p) => `${p.x.toFixed(1)} ${p.y.toFixed(1)}`;
    const half = (a, b) => ({ x: (a.x + b.x) / 2, y: (a.y + b.y) / 2 });
    let path = `M${at(points[0])}`;
    for (let i = 1; i < points.length - 1; i++) {
      const end = i === points.length - 2 ? points[i + 1] : half(points[i], points[i + 1]);
      path += `Q${at(points[i])} ${at(end)}`;
    }
    return points.length > 2 ? path : `${path}L${at(points[1])}`;
  }

  function tip(points) {
    const [from, to] = points.slice(-2);
    const long = Math.hypot(to.x - from.x, to.y - from.y) || 1;
    const x = (to.x - from.x) / long, y = (to.y - from.y) / long;
    const side = (way) => `${(to.x - 8 * x - way * 4 * y).toFixed(1)},${(to.y - 8 * y + way * 4 * x).toFixed(1)}`;
    return `${to.x.toFixed(1)},${to.y.toFixed(1)} ${side(1)} ${side(-1)}`;
  }

  function drawEdge(told) {
    const { edge, points, label, x, y } = told;
    const kinds = ["edge", edge.conditional && "conditional", edge.change && `was-${edge.change}`].filter(Boolean);
    const group = make("g", { class: kinds.join(" ") },
      make("path", { d: curve(points) }), make("polygon", { points: tip(points) }));
    if (label) group.append(text(label, x, y, "said"));
    return group;
  }

  function drawBox(box, { x, y, width: w, height: h }) {
    const kinds = ["box", box.change && `was-${box.change}`].filter(Boolean).join(" ");
    const name = `${SIGNS[box.change] ? SIGNS[box.change] + " " : ""}${cut(box.name)} · ${box.kind}`;
    return [
      make("g", { class: kinds }, make("rect", { x: x - w / 2, y: y - h / 2, width: w, height: h, rx: 10 })),
      text(name, x - w / 2 + 10, y - h / 2 + 13, "named", "start"),
    ];
  }

  function drawNode(node, { x, y, width: w, height: h }, link) {
    const kinds = ["node", `of-${node.kind}`, node.change && `was-${node.change}`].filter(Boolean).join(" ");
    const isPoint = node.kind === "start" || node.kind === "end";
    const shape = isPoint && node.box
      ? make("circle", { cx: x, cy: y, r: 6 })
      : make("rect", { x: x - w / 2, y: y - h / 2, width: w, height: h, rx: isPoint ? h / 2 : node.kind === "interrupt" ? 0 : 8 });
    const told = [node.box ? `${node.box}: ${node.name}` : node.name, node.word, node.change,
      node.tools.length && `tools: ${node.tools.slice(0, 12).join(", ")}`, ...node.asks.slice(0, 3)].filter(Boolean);
    const group = make("g", { class: kinds }, make("title", {}, told.join("\n").slice(0, 600)), shape);
    if (isPoint && !node.box) group.append(text(titled(node), x, y, "name"));
    if (!isPoint) group.append(text(titled(node), x, y - 8, "name"), " ", text(node.word, x, y + 11, "word"));
    if (isPoint || !link) return group;
    const address = new URL(link, location.href);
    address.searchParams.set("node", node.id.replaceAll(":", "/"));
    return make("a", { href: address.href, "aria-label": `${titled(node)} ${node.word}${node.box && ` in ${node.box}`}: threads that wait there` }, group);
  }

  function draw(drawing) {
    if (drawn.has(drawing)) return;
    const graph = JSON.parse(drawing.dataset.graph);
    const laid = layout(graph);
    const { width: w, height: h } = laid.graph();
    const svg = make("svg", { viewBox: `0 0 ${Math.ceil(w)} ${Math.ceil(h)}`, role: "group", "aria-label": drawing.dataset.name });
    const places = new Map();
    const names = [];  // above the edges
    for (const box of graph.boxes) {
      places.set(box.id, laid.node(`box ${box.id}`));
      const [frame, name] = drawBox(box, places.get(box.id));
      svg.append(frame);
      names.push(name);
    }
    for (const edge of laid.edges()) svg.append(drawEdge(laid.edge(edge)));
    svg.append(...names);
    for (const node of graph.nodes) {
      places.set(node.id, laid.node(`node ${node.id}`));
      svg.append(drawNode(node, places.get(node.id), drawing.dataset.link));
    }
    const counts = make("g", { class: "counts" });
    svg.append(counts);
    const sheet = document.createElement("div");
    sheet.className = "sheet";
    sheet.tabIndex = 0;
    sheet.setAttribute("role", "region");
    sheet.setAttribute("aria-label", drawing.dataset.name);
    sheet.append(svg);
    drawing.replaceChildren(scales(sheet, svg, w, h, places.get("__start__")?.x ?? w / 2), sheet);
    drawn.set(drawing, { places, counts });
    count(drawing);
  }

  // `begins`: where the reader begins, from the left.
  function scales(sheet, svg, w, h, begins) {
    const fit = () => Math.min(1, (sheet.clientWidth - 2) / w, Math.max(300, innerHeight * 0.75) / h);
    let scale = 1;
    const show = (wanted) => {
      scale = Math.min(3, Math.max(0.05, wanted));
      svg.setAttribute("width", Math.floor(w * scale));
      svg.setAttribute("height", Math.floor(h * scale));
    };
    const bar = document.createElement("p");
    bar.className = "scales";
    for (const [word, label, to] of [["−", "Smaller", () => scale / STEP], ["+", "Larger", () => scale * STEP], ["Fit", "Fit", fit]]) {
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = word;
      button.setAttribute("aria-label", label);
      button.addEventListener("click", () => show(to()));
      bar.append(button);
    }
    requestAnimationFrame(() => {
      show(Math.max(READABLE, fit()));
      sheet.scrollLeft = (svg.getBoundingClientRect().left - sheet.getBoundingClientRect().left) + begins * scale - sheet.clientWidth / 2;
    });
    return bar;
  }

  function badge(words, kind, x, y) {
    const w = width(words, "600 12px system-ui") + 12;
    return make("g", { class: `count ${kind}` },
      make("rect", { x: x - w, y: y - 9, width: w, height: 18, rx: 9 }), text(words, x - w / 2, y, "number"));
  }

  // A row stands at a node of the drawing, or at the box that holds it where that node is not drawn.
  function count(drawing) {
    const { places, counts } = drawn.get(drawing);
    const rows = drawing.dataset.counts ? document.querySelectorAll(`${drawing.dataset.counts} [data-node]`) : [];
    counts.replaceChildren();
    for (const { dataset } of rows) {
      const id = dataset.node.replaceAll("/", ":");
      const place = places.get(id) ?? places.get(id.split(":")[0]);
      if (!place) continue;
      let x = place.x + place.width / 2 + 6;
      for (const [number, word, kind] of [[dataset.waiting, "waiting", "is-waiting"], [dataset.runs, "running", "is-running"], [dataset.failed, "failed", "is-failed"]]) {
        if (!Number(number)) continue;
        const made = badge(`${number} ${word}`, kind, x, place.y - place.height / 2 - 7);
        counts.append(made);
        x -= Number(made.firstChild.getAttribute("width")) + 4;
      }
    }
  }

  function keepUp() {
    for (const drawing of document.querySelectorAll(".drawing[data-graph]")) {
      drawn.has(drawing) ? count(drawing) : draw(drawing);
    }
  }

  document.addEventListener("DOMContentLoaded", keepUp);
  document.addEventListener("htmx:after:swap", keepUp);
})();
