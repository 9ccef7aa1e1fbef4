// One or two runs over time. The picture comes once; after that only the line moves, and what it has uncovered.
// To a screen reader it is a slider: its value is the time.
const SVG = "http://www.w3.org/2000/svg";
const STEPS = 200; // arrow keys walk through the whole run in so many
const PAGE = 10;

function make(tag, attributes, parent) {
  const element = document.createElementNS(SVG, tag);
  Object.entries(attributes).forEach(([name, value]) => element.setAttribute(name, value));
  parent.appendChild(element);
  return element;
}

function render({ model, el }) {
  const chart = document.createElement("div");
  chart.className = "vmrk vmrk-runs";
  chart.tabIndex = 0;
  chart.setAttribute("role", "slider");
  chart.setAttribute("aria-label", "Time chart: choose a time");
  chart.title = "Click, or use the arrow keys, to choose a time";
  chart.innerHTML = model.get("svg");
  el.appendChild(chart);
  const svg = chart.querySelector("svg");
  svg.style.cssText = "cursor:pointer;max-width:1250px";
  chart.querySelectorAll("svg").forEach((each) => each.setAttribute("aria-hidden", "true"));

  const width = model.get("width"), end = model.get("end_s");
  const name = `vmrk-past-${Math.random().toString(36).slice(2)}`; // several charts in one page
  const past = make("rect", { x: 0, y: 0, width: 0, height: 10000 }, make("clipPath", { id: name }, svg));
  svg.querySelector(".vmrk-course").setAttribute("clip-path", `url(#${name})`);
  const path = model.get("lanes").map(([top, bottom]) => `M0 ${top}V${bottom}`).join("");
  const line = make("g", { class: "vmrk-now" }, svg);
  for (const [colour, wide] of [["paper", 4], ["ink", 1.6]])
    make("path", { d: path, style: `fill:none;stroke:var(--vmrk-${colour});stroke-width:${wide}` }, line);
  chart.setAttribute("aria-valuemin", 0);
  chart.setAttribute("aria-valuemax", end);

  const show = () => {
    const second = model.get("second"), whole = model.get("whole");
    const x = (width * second) / end;
    line.setAttribute("transform", `translate(${x})`);
    past.setAttribute("width", whole ? width : x);
    svg.querySelectorAll("[data-second]").forEach((moment) => {
      moment.style.display = whole || Number(moment.dataset.second) <= second ? "" : "none";
    });
    chart.setAttribute("aria-valuenow", second);
    chart.setAttribute("aria-valuetext", model.get("text"));
  };
  const choose = (second) => model.send({ second: Math.min(Math.max(second, 0), end) });

  svg.addEventListener("click", (event) => {
    const at = new DOMPoint(event.clientX, event.clientY).matrixTransform(svg.getScreenCTM().inverse());
    choose((at.x / width) * end);
  });
  chart.addEventListener("keydown", (event) => {
    const steps = { ArrowRight: 1, ArrowUp: 1, ArrowLeft: -1, ArrowDown: -1, PageUp: PAGE, PageDown: -PAGE };
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key in steps) choose(model.get("second") + (steps[event.key] * end) / STEPS);
    else if (event.key === "Home") choose(0);
    else if (event.key === "End") choose(end);
    else return;
    event.preventDefault();
    event.stopPropagation(); // or the notebook goes to the next cell
  });
  model.on("change:second change:whole change:text", show);
  show();
}

export default { render };
