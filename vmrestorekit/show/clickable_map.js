// A map of cells that can be clicked and walked through with the arrow keys.
// To a screen reader it is a slider: it has one value, the chosen cell, and a text that says what is there.
const SVG = "http://www.w3.org/2000/svg";
const CELL = 12; // user units of the picture, as block_map draws it

function render({ model, el }) {
  const map = document.createElement("div");
  map.className = "vmrk vmrk-map";
  map.tabIndex = 0;
  map.setAttribute("role", "slider");
  map.style.cursor = "pointer";
  el.appendChild(map);

  const tell = () => {
    const cell = model.get("cell");
    map.setAttribute("aria-label", model.get("label"));
    map.setAttribute("aria-valuemin", 0);
    map.setAttribute("aria-valuemax", Math.max(model.get("cells") - 1, 0));
    map.setAttribute("aria-valuenow", Math.max(cell, 0));
    map.setAttribute("aria-valuetext", model.get("text") || (cell < 0 ? "nothing chosen" : `cell ${cell}`));
    map.querySelectorAll(".vmrk-chosen").forEach((frame) => frame.remove());
    const svg = map.querySelector("svg");
    if (!svg || cell < 0) return;
    const [row, column] = [Math.floor(cell / model.get("columns")), cell % model.get("columns")];
    for (const [colour, width] of [["var(--vmrk-paper)", 4.4], ["var(--vmrk-ink)", 2.2]]) {
      const frame = document.createElementNS(SVG, "rect");
      Object.entries({ x: column * CELL, y: row * CELL, width: CELL, height: CELL, class: "vmrk-chosen" })
        .forEach(([name, value]) => frame.setAttribute(name, value));
      frame.style.cssText = `fill:none;stroke:${colour};stroke-width:${width}`;
      svg.appendChild(frame);
    }
  };
  const draw = () => {
    map.innerHTML = model.get("svg");
    map.querySelectorAll("svg").forEach((svg) => svg.setAttribute("aria-hidden", "true"));
    tell();
  };
  const choose = (cell) => {
    if (cell < 0 || cell >= model.get("cells")) return;
    model.set("cell", cell);
    model.save_changes();
  };

  map.addEventListener("click", (event) => {
    const svg = map.querySelector("svg");
    const at = new DOMPoint(event.clientX, event.clientY).matrixTransform(svg.getScreenCTM().inverse());
    const [column, row] = [Math.floor(at.x / CELL), Math.floor(at.y / CELL)];
    if (column >= 0 && column < model.get("columns") && row >= 0) choose(row * model.get("columns") + column);
  });
  map.addEventListener("keydown", (event) => {
    const columns = model.get("columns");
    const steps = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: columns, ArrowUp: -columns };
    const places = { Home: 0, End: model.get("cells") - 1 };
    if (event.key in steps) choose(model.get("cell") < 0 ? 0 : model.get("cell") + steps[event.key]);
    else if (event.key in places) choose(places[event.key]);
    else return;
    event.preventDefault();
    event.stopPropagation(); // or the notebook goes to the next cell
  });
  model.on("change:svg", draw);
  ["cell", "cells", "columns", "label", "text"].forEach((name) => model.on(`change:${name}`, tell));
  draw();
}

export default { render };
