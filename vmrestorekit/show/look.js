// Names the handles of all sliders in the page by their labels, now and whenever some are added. One watcher
// is enough for a page, however many widgets bring it.
function nameSliders() {
  document.querySelectorAll(".noUi-handle").forEach((handle) => {
    let around = handle.parentElement; // the nearest part that has a label: not every slider marks its own
    while (around && !around.querySelector(".widget-label")) around = around.parentElement;
    const name = around?.querySelector(".widget-label").textContent;
    if (name && handle.getAttribute("aria-label") !== name) handle.setAttribute("aria-label", name);
  });
}

function watch() {
  let waiting = 0;
  new MutationObserver(() => {
    cancelAnimationFrame(waiting); // once for many changes
    waiting = requestAnimationFrame(nameSliders);
  }).observe(document.body, { childList: true, subtree: true });
}

function render({ el }) {
  el.style.display = "none";
  nameSliders();
  if (!window.vmrestorekitNamesSliders) watch();
  window.vmrestorekitNamesSliders = true;
}

export default { render };
